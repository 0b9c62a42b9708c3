"""Gold and answer by kind of answer: units, money, times, choices, chains, restated questions, fonts."""

import pytest

from grpo_cli.grading.symbolic import judge_fully

SAME = {
    "a unit from the list, or no unit": [
        ("7", "7 cats"), ("7", r"7\text{ red balls}"), ("7 cats", "7"), ("7 cats", "7 black cats"), ("8", "8 pairs"),
        (r"7\text{ frobs}", "7"), (r"7\text{ frobs}", "7 frobs"), ("60", "60 years old"), ("60", "60 mph"),
        ("60", r"60\ \mathrm{kg\cdot m/s^2}"), (r"60\text{ m/s}", r"60\ \mathrm{m\,s^{-1}}"),
        ("9", r"9\text{ units}^3"),
        (r"3\text{ m}^2", "3 square meters"), (r"4\,\mu\text{m}", "4 micrometers"), (r"4\text{ k}\Omega", "4 kilohms"),
        (r"4\ \frac{\text{m}}{\text{s}^2}", "4 meters per second squared"), (r"2\pi\text{ cm}", r"2\pi cm"),
        (r"6\sqrt{2}", r"6\sqrt{2} inches"), ("30", r"30^\circ\text{C}"), (r"30^\circ", "30 degrees Celsius"),
        (r"\frac{3}{4}mg", r"\frac{3mg}{4}"),
        ("12 kWh", "12 kilowatt hours"), ("3 cups", "3 cups of flour"), ("8", "8 percent"), ("5 lb", "5 pounds"),
        ("20", "20 square"),
    ],
    "a word that counts is part of the value": [
        ("2000000", "2 million"), ("1.5 billion", "1500000000"), ("36", "3 dozen"), ("36 eggs", "3 dozen eggs"),
        ("\\$2,500,000", "2.5 million dollars"), ("-8", "minus 8"), ("-8", r"\text{negative }8"),
    ],
    "money": [
        ("\\$3.20", "320 cents"), ("75 cents", "\\$0.75"), ("\\$8", "$8"), ("8", "$8"), ("8 euros", "€8"),
        ("£8", "8 pounds"), ("\\$8", "8 USD"), ("\\$8/\\text{hour}", "8 dollars per hour"),
    ],
    "times and dates": [
        ("7:45", "07:45"), ("7:45 p.m.", "7:45 PM"), (r"7{:}45\text{ p.m.}", r"7:45\,\text{pm}"), ("9 a.m.", "9:00 AM"),
        ("19:45", "7:45 pm"), ("7:45 p.m.", "7:45"), ("7:45", "7:45 a.m."),
        ("9 a.m.", "9"), ("12:05 a.m.", "0:05"), ("2:5", "4:10"), ("3:7", r"\frac{3}{7}"),
        ("March 5, 2021", "2021-03-05"),
        ("5 March", "March 5th"), ("12-5", "7"),
    ],
    "a choice with its text": [
        ("B", r"\textbf{(B)}\ 17"), ("(B)", r"\text{(B) }17"), ("17", r"\textbf{(B)}\ 17"), ("B", "B: Rome"),
        (r"\textbf{(B)}\ 17", "17"), (r"\textbf{(B)}\ 17", "(B)"), ("Rome", "B. Rome"), ("B", "B none of these"),
        ("B", "B)"), ("B", "Option (B)"),
        ("A", "(A) A triangle"), (r"\textbf{(B)}\ \frac{1}{2}", "0.5"),
    ],
    "chains that are true": [
        ("9", "4+5=9"), ("9", "3^2 = 9"), (r"\frac{1}{7}", r"\frac17 \approx 0.1429"), ("9", r"x = 4 + 5 = 9"),
        ("9", r"n = \sqrt{81} \approx 9.0"), ("4", r"\gcd(8,12) = 4"), ("9", "9 or 9.0"),
        (r"\frac{9}{2}", r"4\frac12 \text{ or } 4.5"), (r"4.5 \text{ or } \frac92", "4.5"),
    ],
    "arithmetic, and operators that the gold also uses": [
        ("24", "4!"), ("10", r"\binom{5}{3}"), ("8", "2^3"), ("3", r"\sqrt[3]{27}"),
        (r"\sum_{k=1}^n k", r"\frac{n(n+1)}{2}"),
        (r"\max(a,b)", r"\max(b,a)"),
    ],
    "a symbol in another font": [
        ("4+i", r"4+\mathrm{i}"), ("7e", r"7\mathrm{e}"), (r"7\mathrm{e}^{3}", "7e^3"), (r"\ln 5", r"\mathrm{ln}\,5"),
        (r"3\pi", r"3\mathrm{\pi}"), (r"3\pi", r"3\text{ pi}"), (r"2\mathbf{j}", "2j"),
        (r"\sin x", r"\operatorname{sin} x"),
        (r"2\pi i", r"2\pi\mathrm{i}"),
    ],
    "spellings": [
        (r"\frac{2}{3}", r"0.\bar{6}"), (r"\frac{2}{3}", r"0.\dot{6}"), (r"\frac{1}{7}", r"0.\dot{1}4285\dot{7}"),
        ("8", "8\\ "), ("8", r"\color{blue}8"), ("8", r"\text{Answer: }8"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\frac{1}{3}\begin{pmatrix}3\\6\end{pmatrix}"),
        (r"\begin{pmatrix}-1\\2\end{pmatrix}", r"-\begin{pmatrix}1\\-2\end{pmatrix}"),
        ("(2,6)", "x>2 and x<6"), ("x<2 and x>0", "0<x<2"), (r"\ln|x-1|", r"\frac12\ln((x-1)^2)"),
    ],
}  # fmt: skip

DIFFERENT = {
    "words that are not a unit": [
        ("8", r"8\text{ or whatever}"), ("8", "8 perhaps"), ("8", r"8\text{ }\text{er}"), ("8", "8 squared"),
        ("8", "8 minus two"),
        ("8", r"8\text{ in base nine}"), ("8", "8 fifths"), ("8", "8 tripled"), ("8", "8 gross"), ("8", "8 lots"),
        ("8", r"8\text{!}"), (r"\frac{3}{4}mg", r"\frac{3}{4}"), ("2ms", "2"), ("8", "8 over three"),
        ("8", r"8\text{ pi}"), ("x+8", r"x+8\text{ or less}"),
        ("2,8", r"2,8\text{ except eight}"), ("7", "7 fifths"), ("7 fifths", "7"), ("7 cats", "7 dogs"),
        ("7", r"7\text{ frobs}"), ("8", "8 square roots"),
    ],
    "a word that counts is part of the value": [
        ("2", "2 million"), ("2 million", "2 billion"), ("8", "8 hundred"), ("8", "8 dozen"), ("8 dozen", "8"),
        ("8", "negative 8"),
    ],
    "other units": [
        (r"5\text{ pF}", r"5\text{ nF}"), (r"5\text{ eV}", r"5\text{ keV}"), (r"5\text{ N}", r"5\text{ J}"),
        ("5 days", "5 nights"), ("5 hectares", "5 acres"), ("5 years", "5 light years"),
        ("5 miles", "5 nautical miles"),
        ("5 kilobytes", "5 kilobits"), (r"5\ \Omega", r"5\text{ k}\Omega"), (r"5^\circ\text{C}", r"5^\circ\text{F}"),
        ("5 cats", "5 cm"), (r"5\text{ m/s}", r"5\text{ m}"), ("5 degrees", "5 radians"), ("90%", "90^\\circ"),
    ],
    "money": [
        ("€8", "$8"), ("$8", "£8"), ("8 yen", "8 dollars"), ("8%", "\\$8"), ("8 cents", "\\$8"), ("\\$8", "8 cm"),
        ("£8", "8 lb"),
    ],
    "times and dates": [
        ("5:20", "5:40"), ("5:20", "4:80"), ("5:20", r"\frac{1}{4}"), ("5:20", "5.33"), ("5:20 a.m.", "5:20 p.m."),
        ("5:20 p.m.", "5:25"),
        ("9 a.m.", "10"), ("5:20 a.m.", "17:20"),
        ("2012", "2024-7-5"), ("March 5", "March 6"), ("2021-03-05", "2013"), (r"\frac{1}{2}", "5:10"),
    ],
    "not a choice, or another choice": [
        ("A", "A square"), ("A", "A short proof gives C"), ("B", "(B) is not it"), ("B", "B rather than C"),
        ("B", r"B\text{ maybe C}"), ("B", "B) C D"), ("17", "(B) 18"), ("B", "Option C"),
        (r"\textbf{(B)}\ 17", "C"), ("B", "(C) 17"),
        ("B", r"\textbf{(B)}\ \text{or (C)}"), ("B", "b"),
    ],
    "hedges and chains that are false": [
        ("9", "8=9"), ("8", "8=9"), ("9", "x=8=9"), ("9", r"9 \approx 8"), ("8", r"9 \approx 8"),
        ("9", "either 8 or 9"),
        ("9", "either 8 is right or the answer is 9"), ("9", "8 is wrong so the answer is 9"), ("9", "4+4=9"),
        ("9", r"x = 9 \approx 8"), ("9", r"8\text{ or so}=9"), ("9", "9 or 8"), ("9", "the answer might be 9"),
        ("x<2 or x>5", "x<2 and x>5"), ("x>2", "x>2 and x<5"),
    ],
    "the question restated": [
        ("36", r"\sum_{k=1}^{8} k"), ("120", r"\prod_{k=1}^{5} k"), ("4", r"\gcd(8,12)"), ("24", r"\mathrm{lcm}(8,12)"),
        ("9", r"\max(4,9)"), ("4", r"\operatorname{min}(4,9)"), ("2", r"17 \bmod 5"),
        ("1", r"\lim_{x\to0}\frac{\sin x}{x}"),
        ("2", r"\int_0^2 1\,dx"), ("3x^2", r"\frac{d}{dx} x^3"), ("3x^2", r"\frac{d}{dx}(x^3)"),
        ("6x", r"\frac{d^2}{dx^2}x^3"),
        (r"\frac{n(n+1)}{2}", r"\sum_{k=1}^n k"), ("x = 36", r"x = \sum_{k=1}^{8} k"),
    ],
    "a symbol in another font is not a unit": [
        ("6", r"4+2\mathrm{i}"), ("7", r"7\mathrm{e}"), ("7", r"7\mathrm{i}"), ("7", r"7\text{x}"),
        (r"7\mathrm{e}^{2}", "7"),
        (r"2\mathbf{j}", "2"), (r"x\mathrm{e}", "x"), ("4000", r"4\mathrm{e}3"), ("7", r"7\text{i}"),
    ],
    "logarithms of values that may be negative": [
        (r"\ln|x|", r"\ln x"), (r"\ln|x-5|", r"\ln(5-x)"), (r"\ln|x|", r"\ln|x|+1"), ("|x|", "x"),
    ],
}  # fmt: skip


def rows(table):
    return [pytest.param(*row, id=f"{kind}: {row[0]} / {row[1]}") for kind, cases in table.items() for row in cases]


@pytest.mark.parametrize(("gold", "answer"), rows(SAME))
def test_the_answer_equals_the_gold(gold, answer):
    judgement = judge_fully(gold, answer)
    assert judgement.verdict == "correct", judgement.reason


@pytest.mark.parametrize(("gold", "answer"), rows(DIFFERENT))
def test_the_answer_differs_from_the_gold(gold, answer):
    assert judge_fully(gold, answer).verdict in ("wrong", "unparsable")


def test_words_that_are_not_a_unit_make_an_answer_unparsable_and_are_named():
    judgement = judge_fully("8", "8 perhaps")
    assert (judgement.verdict, judgement.reason) == ("unparsable", "'perhaps' is not a unit")
