"""A spool that cannot be written is said where the job's own output is; nothing else would tell."""

import logging

from torchvitals.hooks.recorder import Recorder


def test_lost_records_are_counted_in_one_line_with_what_to_do(tmp_path, caplog):
    file = tmp_path / "a file"
    file.touch()
    recorder = Recorder(file)
    recorder.event("attached")
    with caplog.at_level(logging.WARNING, "torchvitals"):
        recorder.close()

    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("torchvitals: 1 records were lost (NotADirectoryError")
    assert "--dir" in caplog.messages[0]


def test_a_spool_that_was_written_is_closed_in_silence(tmp_path, caplog):
    recorder = Recorder(tmp_path)
    recorder.event("attached")
    with caplog.at_level(logging.WARNING, "torchvitals"):
        recorder.close()

    assert caplog.messages == []
