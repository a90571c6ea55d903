"""Chapter 7's figures: what is drawn, and what their alternative texts say, is what they were given."""

from helpers.course.figures import ch07 as figures

ENTRY = {"instruction": "Make this plural.", "input": "mouse", "output": "mice"}


def texts(fig):
    return [text.get_text() for ax in fig.axes for text in ax.texts]


def test_parts_of_a_prompt():
    fig = figures.prompt_parts([("frame", "### Instruction:"), ("input", "mouse"), ("answer", "mice")], [5, 1, 2])
    assert {"5", "1", "2", "mouse"} <= set(texts(fig))
    assert fig.get_label().endswith("frame 5, input 1, answer 2.")


def test_batch_and_targets_say_what_is_padding_and_what_the_end():
    fig = figures.batch_and_targets([[1, 2], [3, 99]], [[2, 99], [99, -100]], [2, 1], pad_token_id=99)
    assert texts(fig) == ["1", "2", "3", "99", "2", "99", "99", "−100"]
    assert "Inputs: 1 2; 3 padding. Targets: 2 the end; the end not counted." in fig.get_label()


def test_tokens_by_style():
    fig = figures.tokens_by_style({"Long": (30.25, 5.0), "Short": (12.0, 5.0)})
    assert texts(fig) == ["30.2", "5.0", "12.0", "5.0"]
    assert "Long 30.2 and 5.0; Short 12.0 and 5.0" in fig.get_label()


def test_scores_by_group_draw_each_model_in_the_order_of_the_sizes():
    scores = {"before": {"a": 0.1, "b": 0.2}, "after": {"a": 0.6, "b": 0.7}, "other": {"a": 0.9, "b": 0.8}}
    fig = figures.scores_by_group(scores, {"b": 3, "a": 5})
    ax = fig.axes[0]
    drawn = {line.get_label(): list(line.get_xdata()) for line in ax.lines if not line.get_label().startswith("_")}
    assert drawn == {"before": [0.2, 0.1], "after": [0.7, 0.6], "other": [0.8, 0.9]}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b (3)", "a (5)"]
    assert "b 0.20, 0.70, 0.80; a 0.10, 0.60, 0.90" in fig.get_label()


def test_cards_cut_long_texts_and_show_the_scores():
    long = "word " * 100
    cards = [
        ("first", ENTRY, {"before": (long, 0.0), "after": ("mice", 1.0)}),
        ("second", ENTRY, {"after": ("$5", 0.5)}),
    ]
    fig = figures.answer_cards(cards)
    shown = texts(fig)
    assert {"first", "second", "0.00", "1.00", "0.50", "mice", r"\$5"} <= set(shown)
    assert all(text.count("\n") <= 1 for text in shown)
    assert any(text.endswith("…") for text in shown)
    assert "second: request 'Make this plural. mouse', reference 'mice', after '$5' (0.50)" in fig.get_label()


def test_learning_marks_the_lowest_validation_loss():
    fig = figures.learning([1, 10, 20, 30], [5.0, 3.0, 2.0, 1.0], [5.0, 3.0, 2.5, 2.6])
    star = next(line for line in fig.axes[0].lines if line.get_marker() == "*")
    assert (list(star.get_xdata()), list(star.get_ydata())) == ([20], [2.5])
    assert "lowest validation loss, 2.5, at update 20" in fig.get_label()


def test_what_is_asked_and_written():
    assert "“Hot”" in texts(figures.from_text_to_answer())
