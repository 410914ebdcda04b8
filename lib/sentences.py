"""The sentences of the paper whose wording depends on results, from the modules that word them."""

from lib import behavioursentences as behaviour
from lib import comparisonsentences as comparison
from lib import limitsentences as limits
from lib import methodsentences as method
from lib import reflectionsentences as reflection

SENTENCES = {
    "standing": method.standing,
    "preregistration": method.preregistration,
    "deviations": method.deviations,
    "data": method.data_source,
    "tuning": method.tuning,
    "decision": comparison.decision,
    "images": comparison.images,
    "shape": comparison.shape,
    "power": comparison.power,
    "pairing": comparison.pairing,
    "controls": comparison.controls,
    "sensitivity": comparison.sensitivity,
    "curves": comparison.curves,
    "disagreement": behaviour.disagreement,
    "classes": behaviour.classes,
    "confusions": behaviour.confusions,
    "subsets": behaviour.subsets,
    "lossless": behaviour.lossless,
    "calibration": behaviour.calibration,
    "corruption": behaviour.corruption,
    "gates": behaviour.gates,
    "lesions": behaviour.lesions,
    "answer": reflection.answer,
    "skip": reflection.skip,
    "literal": reflection.literal,
    "published": reflection.published,
    "mechanism": reflection.mechanism,
    "gateUse": reflection.gate_use,
    "whyNot": reflection.why_not,
    "tuningLesson": reflection.tuning_lesson,
    "cost": limits.cost,
    "practice": limits.practice,
    "scale": limits.scale,
    "baseline": limits.baseline_gap,
}


def sentences(study, results):
    """{macro: sentence or sentences} whose wording depends on a decision, a sign, a p-value or on what has been run."""
    return {f"{name}Sentence": function(study, results) for name, function in SENTENCES.items()}
