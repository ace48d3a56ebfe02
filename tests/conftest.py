"""One thread for every torch that the tests start: two workers of two threads each on two cores spend their time
waiting for one another (a step of 0.5 ms took 70 ms on a busy machine).
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
