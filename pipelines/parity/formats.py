"""How the proof's figures are written out, on the page and on the terminal."""

from pipelines.parity.model import Comparison, Parity, StepCheck
from pipelines.parity.trace import Quantity

__all__ = ["check", "explanation", "first", "largest", "name", "times", "tiny", "verdict"]


def tiny(value: float) -> str:
    """A difference, to two digits; zero is exact agreement."""
    return "0" if value == 0 else f"{value:.1e}"


def times(value: float | None) -> str:
    """A multiple of the self-noise."""
    return "–" if value is None else f"{value:.2g}×"


def name(quantity: str) -> str:
    """Such as ``gradient norm``."""
    return "final weights" if quantity == "weights" else quantity.replace("_", " ")


def check(comparison: Comparison, quantity: Quantity) -> StepCheck:
    """What a comparison says of one quantity."""
    return next(each for each in comparison.steps if each.quantity == quantity)


def first(comparison: Comparison, quantity: Quantity) -> str:
    """The largest difference of the first steps."""
    return tiny(check(comparison, quantity).first_steps)


def largest(comparison: Comparison, quantity: Quantity) -> str:
    """The largest difference of all steps, and where."""
    found = check(comparison, quantity)
    return f"{tiny(found.largest)} @{found.largest_step}"


def verdict(comparison: Comparison) -> str:
    """What became of a comparison."""
    found = comparison.divergence
    if comparison.kind == "order":
        return "for comparison"
    if found is None:
        return "agree"
    place = "at the end" if found.step is None else f"at step {found.step}"
    return f"{name(found.quantity)} differs {place}"


def explanation(parity: Parity) -> str:
    """The rule in words."""
    if parity.claim == "exact":
        return f"float64: at most {parity.least['loss']:.0e} apart at every step and at the end."
    perturbed = f"{parity.floor_runs} perturbed run{'' if parity.floor_runs == 1 else 's'}"
    least = ", ".join(f"{bound:.2g} ({name(each)})" for each, bound in parity.least.items())
    changes = {each: bound for each, bound in parity.later.items() if bound != parity.least[each]}
    if changes:
        later = ", ".join(f"{bound:.2g} ({name(each)})" for each, bound in changes.items())
        least += f" apart over the first {parity.first_steps} steps, from then on {later}"
    else:
        least += " apart"
    rule = (
        f"{parity.precision}: at most {least}, or where that is more, "
        f"{parity.multiple:g} times the self-noise. The self-noise is the distance that "
        f"{parity.floor_run} takes from itself when every initial weight is moved by one rounding "
        f"({perturbed})."
    )
    if parity.lookahead:
        rule += (
            " The network has kinks, which make noise jump at steps that no two runs share: it is "
            f"held to the self-noise of {parity.lookahead} steps later. The proof is float64."
        )
    if parity.claim == "mixed":
        rule += " Mixed precision rounds where each framework chooses: nothing tighter holds."
    return rule
