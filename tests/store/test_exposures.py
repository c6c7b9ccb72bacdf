from datetime import timedelta

from ratchet.records import Interaction, Message, Thumbs
from ratchet.store import Window, read_exposures
from tests.conftest import STORE_CLOCK

HOUR = timedelta(hours=1)


def test_an_experiment_is_read_with_user_arm_and_feedback_on_both_databases(open_store):
    store = open_store()
    for number, (experiment, arm) in enumerate(
        [("e", "champion"), ("e", "challenger"), ("other", "champion"), (None, None)]
    ):
        metadata = {"experiment": experiment, "arm": arm} if experiment else {"note": "e"}
        store.add_interactions(
            [
                Interaction(
                    id=f"i{number}", session_id="s", user_id=f"u{number}",
                    created_at=STORE_CLOCK + number * HOUR, model_version=f"m/{number}",
                    messages=(Message(role="user", content="?"),), response="!", metadata=metadata,
                    latency_seconds=0.5 if number else None, error=None if number else "no",
                )
            ]
        )  # fmt: skip
        late = STORE_CLOCK + number * HOUR + (2 * HOUR if number else timedelta(0))
        store.add_feedback(
            [Thumbs(id=f"t{number}", interaction_id=f"i{number}", created_at=late, value="down")]
        )
    window = Window(STORE_CLOCK, STORE_CLOCK + 5 * HOUR)
    rows = read_exposures(store, window, experiment="e", lag=HOUR).to_pylist()
    assert [row["user_id"] for row in rows] == ["u0", "u1"]
    assert [row["arm"] for row in rows] == ["champion", "challenger"]
    assert [row["model_version"] for row in rows] == ["m/0", "m/1"]
    assert [row["failed"] for row in rows] == [True, False]
    assert [row["latency_seconds"] for row in rows] == [None, 0.5]
    assert [row["thumbs"] for row in rows] == [0.0, None]
    assert read_exposures(store, window, experiment="nobody's", lag=HOUR).num_rows == 0
