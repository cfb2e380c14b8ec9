from adanat_rl.evaluation.panel.contract import Value
from adanat_rl.evaluation.panel.standing import Standing, standing

VALUES = (
    Value("fd", "FD", True, 0.03, is_relative=True),
    Value("recall", "recall", False, 0.015),
    Value("accuracy", "accuracy", False, 0.005),
)


def test_values_beyond_their_margins_are_told() -> None:
    before = {"fd": 1.0, "recall": 0.8, "accuracy": 0.9}
    assert standing(VALUES, {"fd": 0.9, "recall": 0.75, "accuracy": 0.904}, before) == Standing(("fd",), ("recall",))
    assert standing(VALUES, {"fd": 1.04, "recall": 0.82, "accuracy": 0.89}, before) == Standing(
        ("recall",), ("fd", "accuracy")
    )


def test_small_differences_what_was_paid_and_what_is_missing_do_not_count() -> None:
    before = {"fd": 1.0, "recall": 0.8, "accuracy": 0.9}
    assert standing(VALUES, {"fd": 0.98, "recall": 0.79, "accuracy": 0.896}, before) == Standing((), ())
    assert standing(VALUES, {"fd": 0.5, "recall": 0.1}, before, rewarded={"fd"}) == Standing((), ("recall",))
    assert standing(VALUES, {"fd": float("nan")}, before) == Standing((), ())
