"""Numbers and names as the paper writes them."""

from lib.comparisons import LITERAL
from lib.wording import arm_name, effect, escaped, excludes_zero, first_names, p_value, percent, share, signed, span


def test_numbers_are_written_as_mathematics():
    assert (signed(-0.5), signed(None), span([-1, 2])) == ("$-0.50$", "--", "$-1.00$ to $+2.00$")
    assert (p_value(0.0004), p_value(0.25), percent(0.6713)) == ("$p<0.001$", "$p=0.250$", "67.13")
    assert (share(0.0001), share(0.66)) == (r"less than 1\,\%", r"66\,\%")
    assert effect({"difference_pp": 0.1, "low_pp": None, "high_pp": None}) == "$+0.10$ (no interval)"


def test_what_means_something_to_latex_is_escaped():
    assert escaped("se_x − 5 % & #1 ~^\\{}$") == (
        r"se\_x $-$ 5 \% \& \#1 \textasciitilde{}\textasciicircum{}\textbackslash{}\{\}\$"
    )


def test_arms_have_the_names_of_the_paper():
    assert arm_name("se_resnet18_r4") == "SE, r = 4" and arm_name("my_arm") == "my_arm"
    assert arm_name("se_resnet18__other_winner") == "SE, other winner"
    assert arm_name(LITERAL) == "SE on skip" and arm_name("half_scale_skip_resnet18") == "half on skip"


def test_only_an_interval_that_is_known_excludes_zero():
    intervals = {(0.1, 0.2): True, (-0.2, -0.1): True, (-0.1, 0.1): False, (None, None): False}
    assert {pair: excludes_zero(dict(zip(("low_pp", "high_pp"), pair, strict=True))) for pair in intervals} == intervals


def test_a_long_list_is_cut_and_says_so():
    assert first_names(list("abc")) == list("abc") and first_names(list("abcde")) == [*"abc", "and 2 more"]
