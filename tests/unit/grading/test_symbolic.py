"""Gold and answer, judged as a mathematician would. Each bug that is found adds a row."""

from contextlib import suppress

import pytest

from grpo_cli.grading.math_grader import Undecided, judge
from grpo_cli.grading.symbolic import judge_fully

SAME = [
    ("204_5", "204_{5}"), ("3+4i", "3 + 4i"), ("i", r"\sqrt{-1}"), (r"2e^{i\pi/3}", r"1+\sqrt{3}i"), ("5", "$5"),
    ("5", "5 dollars"), ("1000", "$1,000"), (r"\frac{3}{4}", ".75"), (r"\frac{3}{4}", "0.750"),
    (r"\frac{1}{2}", r"\frac12"), (r"\frac{a+b}{2}", "(a+b)/2"), (r"\frac{2}{4}", "1/2"), (r"1\frac{1}{2}", "1.5"),
    (r"1\frac{1}{2}", r"\frac{3}{2}"), (r"2 \frac{3}{4}", "2.75"), ("[0,1]", r"0\leq x\leq 1"),
    (r"(0,\infty)", "x>0"), ("(2,3)", "2<x<3"), (r"x \in [2,5)", "[2,5)"),
    (r"(-\infty,-1)\cup(1,\infty)", "x<-1 or x>1"), (r"(-\infty,-1)\cup(1,\infty)", r"(1,\infty)\cup(-\infty,-1)"),
    (r"(-\infty, 3) \cup (3, \infty)", r"x \neq 3"), ("x=2", "2"), ("x = 2, y = 3", "y=3, x=2"),
    ("(2,3)", "x=2, y=3"), ("2,3", "x=2 or x=3"), ("2,3", r"x=2 \text{ or } x=3"), ("x=2,3", "2, 3"),
    (r"\{2,3\}", "x = 2, 3"), (r"\pm 2", "2,-2"), (r"\pm 2", r"\{-2,2\}"),
    (r"x=\pm\sqrt{2}", r"\sqrt{2}, -\sqrt{2}"), (r"1\pm\sqrt{2}", r"1+\sqrt2, 1-\sqrt2"), ("42", "42.00"),
    ("42", "+42"), ("42", '  42\n'), ("42", r"\text{42}"), ("42", r"42 \text{ units}"), ("42", r"\boxed{42}"),
    ("42", "$42$"), ("42", r"\(42\)"), ("42", "x=42"), ("42", "**42**"), ("42", "The answer is 42"),
    ("42", "the answer is $x=42$"), ("42", r"\mathbf{42}"), ("1234567", "1,234,567"), ("1234567", r"1\,234\,567"),
    ("0.001", "10^{-3}"), ("0.001", "1e-3"), (r"6.02\times10^{23}", "6.02e23"),
    (r"6.02\times10^{23}", r"6.02 \cdot 10^{23}"), ("-7", "\u2212 7"), ("3.14", "3.140"), ("025", "25"),
    ("1,000", "1000"), (r"50\%", "50%"), (r"50\%", "50 percent"), (r"50\%", "0.5"), (r"12.5\%", r"\frac{1}{8}"),
    ("50", r"50\%"), (r"\sqrt{12}", r"2\sqrt{3}"), (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
    (r"\sqrt[3]{27}", "3"), (r"\sqrt{2}", "2^{1/2}"), (r"\sqrt{8}", "2.828427"), (r"2\pi", "6.283185"),
    (r"\sqrt{2}", "sqrt(2)"), (r"2\sqrt{3}", "2*sqrt(3)"), (r"\pi/2", "pi/2"), ("3:4", "3:4"),
    ("1:2:3", "1 : 2 : 3"), ("y=2x+3", "2x+3"), ("y=2x+3", "y-2x-3=0"), ("x^2+y^2=1", "y^2+x^2=1"),
    ("2x-3y=6", "4x-6y=12"), (r"x\ge3", r"3\le x"), ("x>3", "x-3>0"), (r"x \le 2", r"(-\infty,2]"),
    (r"\{1,2,3\}", "{3,2,1}"), (r"\{1,2,3\}", "3, 2, 1"), (r"\emptyset", r"\{\}"), (r"\varnothing", r"\emptyset"),
    (r"\{0\}", "0"), ("x^2-1", "(x-1)(x+1)"), (r"\sin^2 x", r"1-\cos^2 x"), (r"\ln(ab)", r"\ln a+\ln b"),
    ("e^{x+y}", "e^x e^y"), (r"\frac{n(n+1)}{2}", r"\binom{n+1}{2}"), ("2^{n+1}", r"2\cdot 2^n"),
    ("x^{1/2}", r"\sqrt{x}"), (r"\log_2 8", "3"), ("f(x)=2x", "2x"), ("-x+1", "1-x"), ("3!", "6"),
    (r"\tan 45^\circ", "1"), (r"\sin\frac{\pi}{6}", r"\frac12"), (r"\frac{x}{y}", "x/y"), ("xy", "yx"),
    (r"x \cdot y", "xy"), (r"\frac{1}{x+1}", "(x+1)^{-1}"), (r"\text{Monday}", "Monday"),
    (r"\text{Monday}", "monday"), ("Monday", r"\textbf{Monday}"), (r"\text{yes}", "yes"), ("A", r"\text{A}"),
    ("A", "(A)"), ("C", r"\textbf{(C)}"), ("C", "(C) 12"), (r"\text{(C)}", "C"), ("C", "C."),
    (r"\text{odd}", "odd"), (r"\text{no solution}", "No solution."), ("(1,2)", r"\left(1,2\right)"),
    ("(1,2)", "(1.0, 2)"), (r"(\frac12,3)", "(0.5,3)"), ("(x,y)=(1,2)", "(1,2)"),
    ("(1,2,3)", r"\langle 1,2,3\rangle"), ("(1,2)", "(x,y)=(1,2)"), ("(-1,2),(3,4)", r"(3,4) \text{ and } (-1,2)"),
    ("x^2", "x\xb2"), ("x^{2}", "x**2"), (r"\frac{1}{4}", "\xbc"), (r"\pi", "\u03c0"), (r"2\sqrt{3}", "2\u221a3"),
    (r"30^\circ", "30\xb0"), (r"30^\circ", "30 degrees"), ("30", r"30^\circ"), (r"x\le 5", "x\u22645"),
    (r"3\cdot 4", "3\xd74"), (r"\infty", "\u221e"), ("-5", "\u22125"), (r"(-\infty,2]", "(\u2212\u221e, 2]"),
    (r"5\text{ cm}", "5 cm"), (r"5\text{ cm}", "5"), ("5", "5 cm"), (r"5\text{ cm}", r"5\text{ centimeters}"),
    (r"5\text{ cm}^2", r"5\text{ square centimeters}"), (r"10\text{ m/s}", "10 m/s"),
    (r"10\text{ miles per hour}", "10 mph"), ("7", r"7 \text{ apples}"), (r"\$5.50", "5.5"),
    (r"\$5.50", "5.50 dollars"), (r"12\text{ in}", "12 inches"), (r"24\text{ hours}", "24"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
    (r"\begin{pmatrix}1/2\\2\end{pmatrix}", r"\begin{pmatrix}0.5\\2\end{pmatrix}"),
    (r"0.\overline{3}", r"\frac13"), (r"0.1\overline{6}", r"\frac16"), (r"0.\overline{3}", "0.333333"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"), (r"-\frac{1}{2}", "-1/2"), (r"-\frac{1}{2}", r"\frac{1}{-2}"),
    (r"\frac{\pi}{4}", r"\frac14\pi"), (r"\frac{-3+\sqrt{5}}{2}", r"-\frac{3-\sqrt5}{2}"), ("2^{10}", "1024"),
    ("10!", "3628800"), (r"\frac{10!}{8!}", "90"), (r"\binom{5}{2}", "10"), ("|x|", r"\left|x\right|"),
    (r"\lfloor x\rfloor", r"\left\lfloor x \right\rfloor"), ("a_1+a_2", "a_{2}+a_{1}"), ("x_1=1,x_2=2", "1,2"),
    (r"\alpha+\beta", r"\beta+\alpha"), (r"\mathrm{e}^2", "e^2"), (r"1-\frac{1}{\mathrm{e}}", "1-1/e"),
    (r"\dfrac{\pi}{3}", r"\tfrac\pi3"), (r"\mathbb{R}", r"\mathbb R"), (r"\mathbb{R}", "\u211d"),
    (r"(-\infty,\infty)", r"\mathbb{R}"), (r"x\in\mathbb{R}", r"\mathbb{R}"), ("2x", r"2 \cdot x"),
    ("x+y", "x + y."), (r"\cos\theta", r"\cos \theta"), (r"\cos(\theta)", r"\cos\theta"),
    (r"\frac{\sin x}{x}", r"\sin(x)/x"), (r"\ln x", r"\log_e x"), (r"4\pi r^2", r"4 \pi r^{2}"),
    (r"\frac{4}{3}\pi r^3", r"\frac{4\pi r^3}{3}"), ("3x+2", "2+3x"), ("n^2+n", "n(n+1)"), ("k(k-1)", "k^2-k"),
    (r"1+\frac{1}{2^{2020}}", r"\frac{1}{2^{2020}}+1"), (r"\gamma^2-1", r"(\gamma-1)(\gamma+1)"),
    (r"\frac{dy}{dx}=2y", r"\frac{dy}{dx} = y+y"), (r"\sum_{k=1}^{10}k", "54+1"), (r"\gcd(12,18)", "6"),
    (r"\frac{(n-1)!}{k!} \frac{n}{(n-k)!}", r"\frac{n!}{k!(n-k)!}"), (r"R_{\odot}^2 d", r"d R_\odot^{2}"),
    (r"k_{\mathrm{B}}T", "k_B T"), (r"\frac{\sqrt{3}}{3}", r"\frac{\sqrt{3}}{3} \approx 0.577"),
    ("(3,4),(3,4),(1,2)", "(1,2),(3,4)"), (r"\infty", "infinity"), ("0", r"\sqrt{2}-\sqrt{2}"),
   
    (r"\begin{pmatrix}1\\2\end{pmatrix},\begin{pmatrix}3\\4\end{pmatrix}",
     r"\begin{pmatrix}3\\4\end{pmatrix}, \begin{pmatrix}1\\2\end{pmatrix}"),
    (r"\left\{\frac{1}{2},2\right\}", r"\{2, 0.5\}"),
    (r"x = \frac{3 \pm \sqrt{5}}{2}", r"\frac{3+\sqrt5}{2}, \frac{3-\sqrt5}{2}"), (r"16\%", "16"),
    (r"\text{A, B}", "A, B"), ("A,B", "B and A"), (r"\frac{3}{2}", r"1 \frac{1}{2}"), ("6.5", r"6\frac12"),
    ("4x^3-x", "-x+4x^3"), ("(x-5)(x^2-4x+7)", "(x^2-4x+7)(x-5)"), (r"3\sqrt{3}", r"\sqrt{27}"),
    (r"\frac{1}{2}\log_2 3", r"\log_4 3"), ("n!", r"n \cdot (n-1)!"), ("0", "-0"),
    (r"\tfrac{59}{12}", r"\frac{59}{12}"), (r"\left( \frac{3}{5}, \frac{8}{3} \right]", "(0.6, 8/3]"),
    (r"-\frac{35}{9}", r"- \frac{35}{9}"), ("13,535", "13535"), (r"\$32,\!348", "32348"),
    (r"1.25\cdot10^{-3}", "0.00125"), ("y = 3x + 4", "3x+4=y"), (r"m\angle A = 30^\circ", "30"),
    (r"\text{east}", "East"), (r"2000\text{ calories}", "2000"), ("20", r"20\text{ km/h}"),
    (r"20\text{ km/h}", "20 km/h"), ("(1,4.5)", r"(1,\frac{9}{2})"), ("[-1,1]", r"-1\le x\le 1"),
    (r"x\in(0,1)", "0<x<1"), (r"(0,1)\cup(1,2)", r"(1,2)\cup(0,1)"), ("a+b i", "bi + a"), ("|z|=1", "|z|=1"),
    (r"f^{-1}(x)=\frac{x-1}{2}", r"\frac{x-1}{2}"), ("f(x)=x+1", "f(x)=1+x"), ("x^2+y^2+2x=0", "(x+1)^2+y^2=1"),
    ("1,-1", r"\pm 1"), (r"\frac12,-\frac12", r"\pm\frac12"), (r"\text{Thursday}", "The answer is Thursday."),
    ("12", r"12 \text{ (units)}"), (r"\overline{AB}", r"\overline{AB}"), ("120", r"120 \text{ ways}"),
    ("0.25", r"25\%"), ("3/8", "0.375"),
    ("6", "2(3)"), ("6", "(2)(3)"), ("-2", "(-1)(2)"), ("20", r"2\binom{5}{2}"), (r"\frac{3}{2}", r"3(\frac{1}{2})"),
    ("14", "2(3+4)"), (r"\log_{2}(3)", r"\frac{\ln 3}{\ln 2}"), ("32", r"2^{3}(4)"),
]  # fmt: skip

DIFFERENT = [
    ("204_5", "204"), ("204_5", "54"), ("204_5", "204_6"), ("3+4i", "4+3i"), ("3+4i", "3-4i"),
    (r"\frac{1}{3}", "0.33"), (r"\frac{1}{3}", "0.3"), (r"\frac13", "0.333334"), (r"\frac{1}{x+1}", "1/x+1"),
    ("[2,5)", "[2,5]"), ("[2,5)", "(2,5)"), ("[2,5)", "[2,5"), ("(0,1)", r"\{0,1\}"), ("x>3", "x<3"),
    ("x>3", r"x\ge 3"), ("x>3", "y>3"), ("x=2", "y=2"), ("2", "x=3"), ("2", "2x=4"), ("2,3", "2"),
    ("2,3", "2,3,4"), ("2", "2,3"), ("2", "2 or 3"), ("2", "2, 2"), (r"\pm 2", "2"), ("2", r"\pm 2"),
    (r"\{1,2\}", "(1,2)"), ("(1,2)", "(2,1)"), ("(1,2)", r"\{1,2\}"), ("(1,2)", "[1,2]"), ("(1,2,3)", "(1,2)"),
    ("42", "43"), ("42", "-42"), ("42", "4 2"), ("42", "420"), ("42", "4_2"), ("42", "42_5"), ("42", "042a"),
    ("42", "\uff14\uff12"), ("42", '4\x002'), ("42", "42\u0301"), ("42", "0x2A"), ("42", "forty-two"),
    ("42", "??"), ("42", ""), ("42", "42 or 43"), ("42", "42 and 43"), ("42", "not 42"), ("42", "42, 43"),
    ("42", "42; 43"), ("42", "41 or 42"), ("42", "[41,43]"), ("42", "between 41 and 43"), ("42", r"\approx 41"),
    ("42", r"\le 42"), ("42", "<42"), ("42", "x<42"), ("42", "42+x"), ("42", "42x"), ("42", "42i"), ("42", "42^2"),
    ("42", "42!"), ("42", r"\frac{42}{0}"), ("42", "42/0"), ("42", r"\sqrt{42}"), ("42", r"42\%43"),
    ("42", r"\boxed{42}\boxed{43}"), ("42", r"\boxed{6}\boxed{7}"), ("42", "6 7"), ("42", "answer"), ("42", "x"),
    ("42", "{42"), ("42", "42}"), ("42", "print(42)"), ("42", "int('42')"), ("42", "42 # 43"), ("42", "42 // 43"),
    ("42", "41.99999"), ("42", "42.00001"), ("42", "41.9999999999"), (r"50\%", "5"), (r"50\%", "0.05"),
    (r"50\%", r"500\%"), ("0.5", r"5\%"), (r"\sqrt{2}", "1.41"), (r"\sqrt{2}", "2"), (r"\sqrt{2}", r"-\sqrt{2}"),
    (r"\sqrt{16}", r"\pm4"), (r"\pi", "3.14"), (r"\pi", "22/7"), (r"2\pi", "2e"), ("3:4", "4:3"),
    ("y=2x+3", "y=2x-3"), ("y=2x+3", "2x+3y"), ("x^2+y^2=1", "x^2+y^2=2"), ("x^2+y^2=1", "x^2-y^2=1"),
    ("x^2+y^2=1", "1"), ("x>3", "3"), (r"\{1,2,3\}", r"\{1,2\}"), (r"\emptyset", "0"), ("0", r"\emptyset"),
    ("x^2-1", "x^2+1"), ("x^2", "x^3"), ("x", "y"), ("x+1", "x"), ("n", "N"), (r"\sin x", r"\cos x"),
    ("e^x", "e^{-x}"), ("2^n", "n^2"), (r"\text{Monday}", "Tuesday"), (r"\text{yes}", "no"), ("A", "B"),
    ("A", "A or B"), ("A", "AB"), ("A", "A, B"), (r"\text{ellipse}", r"\text{circle}"), ("C", "(D)"),
    ("C", "(C) or (D)"), (r"5\text{ cm}", r"5\text{ m}"), (r"5\text{ cm}", r"5\text{ cm}^2"),
    (r"5\text{ cm}", r"6\text{ cm}"), (r"5\text{ cm}", r"50\text{ mm}"), (r"2\text{ hours}", r"2\text{ minutes}"),
    (r"\$5", r"5\text{ cents}"), (r"45^\circ", r"\frac{\pi}{4}"), (r"45^\circ", r"54^\circ"),
    (r"45^\circ", r"45\text{ radians}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2&3&4\end{pmatrix}"), (r"0.\overline{3}", "0.3"),
    (r"0.\overline{3}", "0"), (r"0.\overline{12}", "0.12"), ("3e8", "3"), ("3e8", "3e9"), ("1e-8", "2e-8"),
    ("1.5e-8", "1e-8"), ("7", "y=8"), ("a_1", "a_2"), ("x_1", "x"), ("f'", "f"), ("x'", "x"), ("R", "r"),
    ("5", "5y"), (r"-\frac{1}{2}", r"\frac12"), (r"\frac{a}{b}", r"\frac{b}{a}"), (r"\frac{x+1}{2}", r"x+\frac12"),
    ("2x", "x^2"), ("x^{10}", "x^1 0"), ("10^{35}", "10^{3}5"), ("x^2y", "x^{2y}"), ("|x|", "x"),
    (r"\lfloor x\rfloor", "x"), (r"\lfloor x/2\rfloor", r"\lceil x/2\rceil"), (r"(-\infty,2]", r"(-\infty,2)"),
    (r"(-\infty,2]", r"(-\infty,-2]"), (r"(-\infty,1]\cup[3,\infty)", r"(-\infty,1]\cup(3,\infty)"),
    ("1,2,3", r"1,2,\dots"), (r"\infty", r"-\infty"), (r"\infty", "0"), (r"\mathbb{R}", r"\mathbb{Q}"),
    (r"1-\frac{1}{e}", "1"), ("2", "two or three"), ("x=2,y=3", "x=3,y=2"), ("x=2,y=3", "3,2"),
    (r"3\frac{1}{2}", r"\frac{3}{2}"), ("(3,-1)", "(3,1)"), (r"\text{4:30 p.m.}", "4:30 a.m."),
    (r"\binom{5}{2}", r"\binom{5}{1}"), ("12345678901234567890", "12345678901234567891"), ("10^{20}+1", "10^{20}"),
    (r"\sqrt{10^{40}+1}", "10^{20}"), (r"e^{\pi\sqrt{163}}", "262537412640768744"),
    (r"1+\frac{1}{2^{2020}}", r"1+\frac{2}{2^{2020}}"), (r"\gamma^2-1", r"\gamma^2-2"),
    (r"m\frac{dv}{dt}+bv=f", r"w\frac{dv}{dt}+bv=f"), (r"n-\gcd(n,k)", r"n-\gcd(w,k)"), ("52_8", "-52_8"),
    (r"9\text{ a.m.}", r"9\text{ p.m.}"), ("0", "10^{-40}"), (r"\sqrt{2}\cdot10^{-30}", r"\sqrt{3}\cdot10^{-30}"),
    ("E", "e"), ("12e", "12E"), ("1,1,2", "1,2"), ("(D)", "(D)^2"), ("2n", "20/9"), (r"\emptyset", "5"),
   
    (r"\begin{pmatrix}1\\2\end{pmatrix},\begin{pmatrix}3\\4\end{pmatrix}",
     r"\begin{pmatrix}3\\4\end{pmatrix}, \begin{pmatrix}1\\3\end{pmatrix}"),
    (r"x = \frac{3 \pm \sqrt{5}}{2}", r"\frac{3+\sqrt5}{2}"), ("A,B", "A"), ("A", "A and C"),
    ("x^2+y^2+2x=0", "(x+1)^2+y^2=2"), (r"(0,1)\cup(1,2)", "(0,2)"), ("[-1,1]", r"-1< x\le 1"),
    ("0.25", r"0.25\%"), ("y=3x+4", "y=3x"), ("30", r"m\angle A = 31"), ("7", "7.0001"), ("1,-1", "1"),
    ("n!", "n(n-1)"), (r"\text{east}", "west"), (r"20\text{ km/h}", r"20\text{ m/s}"), ("3", "|x|=4"),
    ("5", r"5 \text{ or } 6"), ("5", "either 5 or 6"), ("5", "5 (or 6)"), ("5", "5/6"), ("5", "5, but could be 6"),
    ("5", "Possible answers: 5, 6"), ("5", "4<5<6"), ("5", "5=6"), ("5", r"5\ne6"), ("5", r"5 \cup 6"),
    ("5", r"\{5\}\cup\{6\}"), ("5", r"5\\6"), ("5", '5\n\n6'), ("5", "5|6"), ("5", "5 6"), ("5", "x=5,x=6"),
    ("5", r"\begin{pmatrix}5\\6\end{pmatrix}"), ("5", r"\text{5 or 6}"), ("5", r"\text{5}\text{6}"),
    ("5", r"5\phantom{6}7"), ("5", r"6\text{ (not 5)}"), ("5", r"\max(5,4)+1"), ("5", "$5$ $6$"), ("5", r"5\,6"),
    ("5", r"5 \& 6"), ("5", "5 xor 6"), ("5", "5;6"), ("5", "5:6"), ("5", "5 -> 6"), ("5", r"5\to6"),
    ("5", "[5,6]"), ("5", "(5)(6)"), ("5", "5?6"), ("5", "5 vs 6"), ("5", "5 maybe 6"), ("5", "5 6 7 8 9"),
    ("5", "5!"), ("x", "5"), ("5", "five or six"),
    ("5", "2(3)"), ("12", r"2\binom{5}{2}"), ("11", "5{6}"), ("18", r"5\phantom{6}7"), ("13", "6 7"), ("67", "6 7"),
    ("43", r"43\label{42}"), ("10^{200}", r"\sqrt{10^{400}+1}"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), SAME)
def test_the_same_answer_in_another_form_is_correct(gold, answer):
    assert judge_fully(gold, answer).verdict == "correct"


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_another_answer_is_not_correct(gold, answer):
    assert judge_fully(gold, answer).verdict in ("wrong", "unparsable")


def test_a_verdict_without_sympy_is_the_same_as_with_it():
    num_decided = 0
    for gold, answer in SAME + DIFFERENT:
        with suppress(Undecided):
            exact = judge(gold, answer)
            assert exact == judge_fully(gold, answer), (gold, answer)
            num_decided += 1
    assert num_decided > 200
