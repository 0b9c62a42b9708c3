import pytest

from grpo_cli.grading.latex import MAX_CHARS, Unreadable, canonical


@pytest.mark.parametrize(
    ("written", "spelling"),
    [
        (" 42. ", "42"),
        ("$42$", "42"),
        (r"\(42\)", "42"),
        ("**42**", "42"),
        (r"\boxed{42}", "42"),
        (r"\boxed{6} \boxed{7}", "6,7"),  # neither 67 nor 6 times 7
        (r"\dfrac 1 2", r"\frac{1}{2}"),
        (r"\tfrac12", r"\frac{1}{2}"),
        (r"\frac{\sqrt6}3", r"\frac{\sqrt{6}}{3}"),
        (r"\\frac{1}{2}", r"\frac{1}{2}"),
        (r"1{,}000{,}000", "1000000"),
        (r"1,\!000", "1000"),
        (r"12\,345", "12345"),
        (r"4\,2", "4 2"),
        ("1,234.5", "1234.5"),
        ("12,34", "12,34"),
        ("(1,234)", "(1,234)"),
        ("x\u00b2", "x^{2}"),
        ("x**2", "x^{2}"),
        ("10^35", "10^{35}"),
        ("2^(n+1)", "2^{n+1}"),
        (r"\left( x, y \right)", "(x,y)"),
        (r"x\leqslant3", r"x\le3"),
        (r"0\leqx", r"0\le x"),
        (r"\pi r", r"\pi r"),
        (r"3 \text{ and } 4", "3 and 4"),
        (r"5 \mbox{ cm}", r"5\text{cm}"),
        (r"x^{\prime}", "x'"),
        (r"2\mathrm{i}", "2i"),
        (r"2\mathrm{e}3", "2*e3"),  # not 2000
        (r"\mathrm{ln} 2", r"\ln2"),
        (r"\mathbf{v}", "v"),
        (r"5\,\mathrm{min}", r"5\text{min}"),
        (r"\mathrm{min}(a,b)", r"\min(a,b)"),
        ("$5", r"\$5"),
        ("$5$", "5"),
        ("5\\ ", "5"),
        (r"3{:}20", "3:20"),
        (r"0.1\bar{6}", r"0.1\overline{6}"),
        (r"0.\dot{1}4\dot{2}", r"0.\overline{142}"),
        ("\u22125", "-5"),
        ("90\u00b0", r"90^{\circ}"),
        (".5", ".5"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        ("", ""),
    ],
)
def test_many_spellings_become_one(written, spelling):
    assert canonical(written) == spelling


@pytest.mark.parametrize(
    "written", [r"\dfrac 1 2", "x**2 + 1", r"\text{ or }", "1,234", r"x_{max}^2", "a  b", r"\frac12x"]
)
def test_a_canonical_text_does_not_change(written):
    assert canonical(canonical(written)) == canonical(written)


@pytest.mark.parametrize(
    "text",
    [
        "4\x002",
        "42\x1b",
        "\u202e42",
        "\uff14\uff12",
        "\u0664\u0662",
        "42\u0301",
        "4\u200b2",
        "\u2168",
        r"\boxed{42",
        "1" * (MAX_CHARS + 1),
    ],
)
def test_text_that_could_pass_for_another_answer_is_rejected(text):
    with pytest.raises(Unreadable):
        canonical(text)
