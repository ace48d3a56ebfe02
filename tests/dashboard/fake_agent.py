"""An agent that tells recorded stories: the API's contract with generated measurements, for the dashboard's tests.

``python tests/dashboard/fake_agent.py --port 7411 --runs 100`` serves it to look at by hand.
"""

import argparse
import json
import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse

import numpy as np

NOW = time.time()
LAYERS = [
    "embedding.weight",
    *(
        f"blocks.{n}.{part}"
        for n in range(6)
        for part in ("norm.weight", "attention.weight", "mlp.0.weight", "mlp.2.weight")
    ),
    "head.weight",
]
UNITS = {"seconds": "s", "bytes": "By"}


def wire(value):
    """Non-finite numbers as the strings of the contract."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {key: wire(item) for key, item in value.items()}
    if isinstance(value, list):
        return [wire(item) for item in value]
    return value


def measurements(steps: int, seed: int) -> dict[str, np.ndarray]:
    """A healthy training."""
    random = np.random.default_rng(seed)
    n = np.arange(steps)
    loss = 0.4 + 3.2 * np.exp(-n / 180) + random.normal(0, 0.04, steps)
    forward, backward = random.gamma(40, 0.0002, steps), random.gamma(40, 0.0004, steps)
    data = random.gamma(4, 0.0005, steps)
    return {
        "loss": loss,
        "gradient_norm": 0.6 + 2 * np.exp(-n / 90) + np.abs(random.normal(0, 0.15, steps)),
        "learning_rate": 3e-4 * np.minimum(1, n / 100) * (0.5 + 0.5 * np.cos(np.pi * n / max(steps, 1))),
        "step_seconds": forward + backward + data + 0.002,
        "data_seconds": data,
        "forward_seconds": forward,
        "backward_seconds": backward,
        "rss_bytes": 9.2e8 + random.normal(0, 1e6, steps),
        "input_absmax": 3 + random.random(steps),
        "overhead_ratio": 0.006 + 0.001 * random.random(steps),
    }


def layers(steps: list[int], seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    depth = np.logspace(0, -3, len(LAYERS))[::-1]
    return depth * np.exp(random.normal(0, 0.3, (len(steps), len(LAYERS))))


def nan_loss() -> dict:
    signals = measurements(612, 1)
    signals["gradient_norm"][590:608] *= np.logspace(0, 4, 18)
    for name in ("loss", "gradient_norm"):
        signals[name][608:] = np.nan
    sampled = [*range(0, 612, 12), 608, 609, 610]
    profile = layers(sampled, 1)
    profile[-3:, 10:] = np.nan
    profile[-1] = np.inf
    profile[20:30, 5] = 0
    return story("nan_loss", "failed", signals, {"parameter_gradient_norm": (LAYERS, sampled, profile)})


def memory_leak() -> dict:
    signals = measurements(2400, 2)
    signals["rss_bytes"] += 4.1e5 * np.arange(2400)
    return story("memory_leak", "running", signals)


def ddp_desync() -> dict:
    made = story("ddp_desync", "finished", measurements(900, 3))
    made["ranks"] = {rank: measurements(900, 3 + rank) for rank in range(2)}
    return made


def amp_overflow() -> dict:
    signals = measurements(500, 5)
    scale = np.full(500, 65536.0)
    scale[300:] = np.maximum(2.0 ** (16 - (np.arange(200) // 4)), 1e-3)
    signals["loss_scale"] = scale
    return story("amp_overflow", "finished", signals)


def dead_relu() -> dict:
    sampled = list(range(0, 1200, 20))
    silent = np.clip(np.outer(np.linspace(0, 1.4, 60), np.linspace(0, 1, 8)), 0, 1)
    units = [f"features.{n}" for n in range(8)]
    return story("dead_relu", "finished", measurements(1200, 7), {"module_silent_units": (units, sampled, silent)})


def data_drift() -> dict:
    random = np.random.default_rng(9)
    blocks = list(range(0, 4000, 100))
    means = random.normal(0, 0.05, (40, 6))
    means[20:, 2] += 1.5
    made = story(
        "data_drift",
        "running",
        {"latency_seconds": random.gamma(9, 0.0005, 4000)},
        {"feature_mean": ([f"feature {n}" for n in range(6)], blocks, means)},
    )
    return made | {"role": "serve"}


def story(name: str, state: str, signals: dict, profiles: dict | None = None) -> dict:
    return {
        "name": name,
        "state": state,
        "role": "train",
        "ranks": {0: signals},
        "profiles": profiles or {},
        "run": f"20260101-120000-{name}-0000",
    }


def cause(word: str, confidence: float, *evidence: str, against: tuple[str, ...] = ()) -> dict:
    return {"cause": word, "confidence": confidence, "evidence": list(evidence), "against": list(against)}


def incident(name: str, kind: str, severity: str, steps: tuple[int, int], causes: list[dict], **more) -> dict:
    first, detected = steps
    return {
        "id": f"{name}-{kind}",
        "run": f"20260101-120000-{name}-0000",
        "name": name,
        "kind": kind,
        "severity": severity,
        "status": "open",
        "first_step": first,
        "detected_step": detected,
        "rank": None,
        "where": "",
        "cause": causes[0]["cause"],
        "confidence": causes[0]["confidence"],
        "causes": causes,
        "title": kind,
        "explanation": "",
        "remedy": "",
        "findings": [
            {
                "kind": kind,
                "severity": severity,
                "first_step": first,
                "step": detected,
                "value": math.nan,
                "threshold": 0.0,
            }
        ],
        "links": {},
        "opened_at": NOW - 900,
        "updated_at": NOW - 600,
        "resolved_at": None,
        "acknowledged_by": None,
        "silenced_until": None,
        **more,
    }


def incidents() -> list[dict]:
    """One incident for each story that has one."""
    return [
        incident(
            "nan_loss", "nonfinite", "critical", (608, 608),
            [
                cause(
                    "numerical_domain_error", 0.93,
                    "aten.log made NaN out of finite inputs at step 608 (smallest input -0.0031).",
                    "All parameters were finite at that step.",
                    "The batch was finite (largest absolute value 3.91).",
                ),
                cause("learning_rate_too_high", 0.05, "The gradient norm grew 9,400-fold in 18 steps.",
                      against=("The learning rate was falling (0.00021).",)),
                cause("bad_batch", 0.01),
            ],
            where="train.py:31", rank=0,
            title="log of a negative number in blocks.3.norm made the loss NaN",
            explanation="At step 608 the operation aten.log in module blocks.3.norm received -0.0031 and returned NaN. "
            "The loss has been NaN since, and so has every gradient from blocks.2.mlp.0 on.",
            remedy="Clamp the argument before the logarithm, torch.log(x.clamp_min(1e-6)) in train.py:31.",
        ),
        incident(
            "memory_leak", "memory_leak", "error", (180, 840),
            [
                cause("retained_graph", 0.88, "A list `losses` (train.py:44) holds 2,398 tensors with their graphs.",
                      "Resident memory grows by 0.41 MB a step, for 1,500 steps."),
                cause("growing_cache", 0.1, "The tensors are referred to from a list."),
            ],
            where="train.py:44", title="The list `losses` keeps every step's graph alive",
            explanation="Memory grows by 0.41 MB a step; at this rate the machine is full in 5.2 hours.",
            remedy="Append loss.item() or loss.detach() in place of loss.",
            links={"signals": ["rss_bytes", "step_seconds"]},
        ),
        incident(
            "ddp_desync", "desync", "critical", (400, 400),
            [cause("rank_local_update", 0.81, "Rank 1 differs from rank 0 in 3 of 26 tensors since step 400.")],
            where="head.weight", rank=1, title="Rank 1 trains other weights than rank 0 since step 400",
            explanation="The digests of head.weight differ since step 400.", remedy="Update under DDP's forward.",
        ),
        incident(
            "amp_overflow", "loss_scale_collapse", "error", (300, 332),
            [cause("fp16_overflow", 0.9, "The loss scale halved 12 times in 48 steps.")],
            title="The loss scale collapses: float16 overflows in every step",
            status="acknowledged", acknowledged_by="mara",
            explanation="Every backward pass since step 300 overflowed.", remedy="Use bfloat16.",
        ),
        incident(
            "dead_relu", "dead_relu", "warning", (500, 640),
            [cause("dying_relu", 0.7, "58 % of the units of features.7 have been silent for 140 steps.")],
            where="features.7", title="Most units of features.7 are dead",
            explanation="They output zero for every input.", remedy="Lower the learning rate or use LeakyReLU.",
        ),
        incident(
            "data_drift", "drift", "warning", (2000, 2200),
            [cause("feature_shift", 0.86, "The mean of feature 2 moved by 1.5 reference deviations.")],
            where="feature 2", title="Feature 2 has shifted since request 2,000",
            explanation="Its mean is 1.5 where the reference has 0.0.", remedy="Check the unit of feature 2 upstream.",
        ),
    ]  # fmt: skip


class Stage:
    """All that the fake agent knows. ``runs`` adds healthy runs until there are so many."""

    def __init__(self, runs: int = 7, *, empty: bool = False, token: str = "", answer: bytes | None = None) -> None:
        makers = (nan_loss, memory_leak, ddp_desync, amp_overflow, dead_relu, data_drift)
        told = [] if empty else [make() for make in makers]
        for number in range(0 if empty else runs - len(told)):
            state = ("finished", "running", "lost")[number % 3]
            told.append(story("healthy" if not number else f"healthy_{number}", state, measurements(700, 20 + number)))
        self.stories = {one["run"]: one for one in told}
        self.incidents = {} if empty else {one["id"]: one for one in incidents()}
        self.token = token
        self.answer = answer
        self.asked: list[str] = []

    def summary(self, one: dict) -> dict:
        mine = [i for i in self.incidents.values() if i["run"] == one["run"] and i.get("status") != "resolved"]
        words = ("critical", "error", "warning", "info")
        counts = {word: sum(i.get("severity") == word for i in mine) for word in words}
        signals = next(iter(one["ranks"].values()))
        steps = len(next(iter(signals.values())))
        return {
            **{key: one[key] for key in ("run", "name", "state", "role")},
            "ranks": len(one["ranks"]),
            "steps": steps,
            "started": NOW - 5400,
            "last_seen": NOW - (1 if one["state"] == "running" else 1800),
            "host": "node-1",
            "command": f"python {one['name']}.py --epochs 10",
            "loss": float(signals["loss"][-1]) if "loss" in signals else None,
            "steps_per_second": 31.4,
            "incidents": counts,
            "worst": next((word for word in counts if counts[word]), None),
        }

    def details(self, one: dict) -> dict:
        names = list(next(iter(one["ranks"].values())))
        return {
            **self.summary(one),
            "facts": {
                "models": [{"name": "Transformer", "parameters": 1_204_224, "wrappers": [], "dtype": "float32"}],
                "optimizers": [{"class": "AdamW", "groups": [{"lr": 3e-4, "weight_decay": 0.01}], "parameters": 26}],
                "scheduler": "LambdaLR", "scaler": False, "clips": None,
                "loader": {"workers": 2, "batch_size": 32, "length": 200}, "script": "train.py",
            },
            "processes": [
                {"rank": rank, "pid": 4000 + rank, "host": "node-1", "last_step": 611, "last_seen": NOW - 60,
                 "state": one["state"], "dropped": 0, "corrupt": 0}
                for rank in (-1, *one["ranks"])
            ],
            "signals": [
                {"name": name, "unit": UNITS.get(name.rpartition("_")[2], "1"), "tells": f"What {name} tells.",
                 "ranks": list(one["ranks"])}
                for name in names
            ],
            "profiles": list(one["profiles"]),
            "checked": ["nonfinite", "explosion", "memory_leak"],
            "not_checked": [{"what": "activations", "why": "not seen: the model is compiled"}],
            "events": [
                {"time": NOW - 5400, "step": 0, "rank": -1, "kind": "command", "details": {"command": "train.py"}},
                {"time": NOW - 1800, "step": 611, "rank": 0, "kind": "exception",
                 "details": {"type": "ValueError", "message": "loss is NaN", "frames": ["train.py:52 main"]}},
            ],
        }  # fmt: skip

    def series(self, one: dict, query: dict) -> list[dict]:
        wanted, points = query["signals"].split(","), int(query.get("points", 600))
        found = []
        for rank, signals in one["ranks"].items():
            if query.get("rank", "all") not in ("all", str(rank)):
                continue
            for name in wanted:
                if name in signals:
                    start, end = int(query.get("start", 0)), int(query.get("end", 10**9))
                    told = bucketed(signals[name], start, end, points)
                    found.append({"signal": name, "rank": rank, "optimizer": 0, **told})
        return found


def bucketed(values: np.ndarray, start: int, end: int, points: int) -> dict:
    steps = np.arange(len(values))[start : end + 1]
    columns: dict[str, list] = {key: [] for key in ("step", "time", "min", "max", "last", "nonfinite")}
    for block in np.array_split(steps, min(points, len(steps))) if len(steps) else []:
        part = values[block]
        good = part[np.isfinite(part)]
        columns["step"].append(int(block[-1]))
        columns["time"].append(NOW - 5400 + float(block[-1]))
        columns["min"].append(float(good.min()) if good.size else None)
        columns["max"].append(float(good.max()) if good.size else None)
        columns["last"].append(float(part[-1]))
        columns["nonfinite"].append(int(part.size - good.size))
    return columns


class Handler(BaseHTTPRequestHandler):
    """The contract's routes."""

    protocol_version = "HTTP/1.1"
    stage: Stage

    def log_message(self, *_):
        pass

    def send(self, body, status: int = 200) -> None:
        data = body if isinstance(body, bytes) else json.dumps(wire(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def missing(self, what: str) -> None:
        self.send({"error": {"what": what, "hint": "list the runs with: torchvitals runs"}}, 404)

    def allowed(self) -> bool:
        if self.stage.token and self.headers.get("Authorization") != f"Bearer {self.stage.token}":
            self.send({"error": {"what": "This agent wants a token.", "hint": "export TORCHVITALS_TOKEN=..."}}, 401)
            return False
        return True

    def do_GET(self) -> None:
        stage = self.stage
        address = urlparse(self.path)
        stage.asked.append(self.path)
        if not self.allowed():
            return
        if stage.answer is not None:
            self.send(stage.answer)
            return
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        parts = [unquote(part) for part in address.path.removeprefix("/api/v1/").split("/")]
        match parts:
            case ["agent"]:
                self.send({"version": "0.1.0", "directory": "~/.local/state/torchvitals", "uptime_seconds": 5400.0,
                           "lag_seconds": 0.12, "records": 84210, "dropped": 0})  # fmt: skip
            case ["runs"]:
                self.send({"runs": [stage.summary(one) for one in stage.stories.values()]})
            case ["incidents"]:
                told = [i for i in stage.incidents.values() if query.get("run") in (None, i["run"])]
                wanted = query.get("status", "open,acknowledged,resolved").split(",")
                kept = [i for i in told if i.get("status", "open") in wanted]
                self.send({"incidents": kept})
            case ["incidents", identity] if identity in stage.incidents:
                self.send(stage.incidents[identity])
            case ["runs", run, *rest] if run in stage.stories:
                self.of_run(stage.stories[run], rest, query)
            case _:
                self.missing(f"There is no {'/'.join(parts)}.")

    def of_run(self, one: dict, rest: list[str], query: dict) -> None:
        match rest:
            case []:
                self.send(self.stage.details(one))
            case ["series"]:
                self.send({"run": one["run"], "series": self.stage.series(one, query)})
            case ["profiles"]:
                entries, steps, values = one["profiles"][query["signal"]]
                self.send(
                    {"signal": query["signal"], "rank": 0, "entries": entries, "step": steps, "values": values.tolist()}
                )
            case _:
                self.missing("no such thing")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        if not self.allowed():
            return
        *_, identity, verb = urlparse(self.path).path.split("/")
        found = self.stage.incidents.get(unquote(identity))
        if found is None:
            self.missing("no such incident")
            return
        if verb == "acknowledge":
            found.update(status="acknowledged", acknowledged_by=body["by"])
        elif verb == "resolve":
            found.update(status="resolved", resolved_at=time.time())
        else:
            found.update(silenced_until=time.time() + body["seconds"])
        self.send(found)


def serve(stage: Stage, port: int = 0) -> ThreadingHTTPServer:
    """The fake agent in a thread; its address is ``server.server_address``."""
    handler = type("StagedHandler", (Handler,), {"stage": stage})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=7411)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--empty", action="store_true")
    chosen = parser.parse_args()
    serve(Stage(chosen.runs, empty=chosen.empty), chosen.port)
    threading.Event().wait()
