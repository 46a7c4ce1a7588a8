"""From annotated contexts to groups of rows: the component's own prompts, varied as a mixture says.

Owns which pairs become rows and what a group's labels are called. Every text is made by the wording and the schema that
inference has, so that nothing is trained that would not be asked. No torch, no spaCy.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from spacy_relx.errors import ConfigError, DataError
from spacy_relx.label_set import Schema
from spacy_relx.prompt_block import make_gentune_prompt
from spacy_relx.prompts import negative_label
from spacy_relx.training.demonstrations import Demonstrations
from spacy_relx.training.label_wordings import LabelWordings
from spacy_relx.training.rows import RowGroup

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spacy_relx.label import Label
    from spacy_relx.prompts import GenTunePrompt
    from spacy_relx.training.contexts import AnnotatedContext, AnnotatedPair
    from spacy_relx.training.mixture import Mixture


def rng_for(mixture: Mixture, epoch: int, text: str) -> Random:
    """The draws of one text in one epoch, which do not depend on the texts before it."""
    return Random(f"{mixture.seed}:{epoch}:{text}")


def epoch_groups(
    contexts: Sequence[AnnotatedContext],
    schema: Schema,
    wording: GenTunePrompt,
    no_relation: str | None,
    mixture: Mixture,
    epoch: int = 0,
    demonstrations: Demonstrations | None = None,
) -> Iterator[RowGroup]:
    """Make the groups of one epoch, in the order of the contexts, or in random order where several share a group.

    Args:
        contexts: The contexts.
        schema: The component's labels.
        wording: The component's prompt.
        no_relation: The negative label as the model sees it, or None: then only pairs with a relation become rows.
        mixture: How rows vary.
        epoch: Number of the epoch; each has draws of its own.
        demonstrations: What is drawn from; None: the contexts themselves.

    Raises:
        ConfigError: If the mixture cannot be followed.
        DataError: If a pair holds a label that the schema lacks.
    """
    if demonstrations is None and mixture.examples is not None:
        demonstrations = Demonstrations(contexts)
    ordered = list(contexts)
    if mixture.texts > 1:  # neighbours in a document would meet in one group in every epoch
        Random(f"{mixture.seed}:{epoch}").shuffle(ordered)
    for shared in chunks(ordered, mixture.texts):
        rng = rng_for(mixture, epoch, shared[0].text)
        yield from rows(shared, schema, wording, no_relation, mixture, rng, demonstrations)


def chunks(contexts: Sequence[AnnotatedContext], n: int) -> Iterator[Sequence[AnnotatedContext]]:
    """The contexts in order, `n` at a time; the last may be fewer."""
    for start in range(0, len(contexts), n):
        yield contexts[start : start + n]


def rows(
    contexts: Sequence[AnnotatedContext],
    schema: Schema,
    wording: GenTunePrompt,
    no_relation: str | None,
    mixture: Mixture,
    rng: Random,
    demonstrations: Demonstrations | None = None,
) -> list[RowGroup]:
    """Make the groups of some contexts that share their looks; see `epoch_groups` for the arguments and errors.

    A pair with several labels becomes a row for each. A pair without one is left out where it reads like a pair with
    one (two mentions of the same text), as no prompt tells them apart, unless it is annotated as holding nothing.
    """
    _check(contexts, schema, mixture, demonstrations)
    wording.fail()
    wording.validate(schema, no_relation)
    made = (_group(contexts, schema, wording, no_relation, mixture, rng, demonstrations) for _ in range(mixture.groups))
    return [group for group in made if group is not None]


def _group(
    contexts: Sequence[AnnotatedContext],
    schema: Schema,
    wording: GenTunePrompt,
    no_relation: str | None,
    mixture: Mixture,
    rng: Random,
    demonstrations: Demonstrations | None,
) -> RowGroup | None:
    wording = _look(wording, mixture, rng)
    asked = [row for context in contexts for row in _asked(context, wording, no_relation is not None, mixture, rng)]
    if not asked:
        return None
    needed = {label for _, pair in asked for label in pair.labels}
    if mixture.examples is None:
        wording, shown = _own_examples(wording, schema)
        needed |= shown
    shown_schema = _listed(schema, needed, "{labels}" in wording.system, mixture, rng)
    negative = None if no_relation is None else negative_label(schema, no_relation)
    if mixture.examples is not None and demonstrations is not None:
        name = None if negative is None else negative.name
        texts = [context.text for context in contexts]
        drawn = demonstrations.draw(rng.choice(mixture.examples), texts, shown_schema.names, name, rng)
        wording = replace(wording, examples=drawn)
    shown_schema, negative = _renamed(schema, shown_schema, negative, wording, mixture, rng)
    wording = _ordered(shown_schema, negative, wording, mixture, rng)
    said = None if negative is None else negative.prompt
    turns = tuple((turn["role"], turn["content"]) for turn in wording.messages(shown_schema, said))
    made = [
        (question, answer)
        for question, pair in asked
        for answer in ([shown_schema[label].prompt for label in pair.labels] or [said or ""])
    ]
    answers = [label.prompt for label in shown_schema]
    return RowGroup(turns, tuple(made), tuple([*answers, said] if said is not None else answers))


def _asked(
    context: AnnotatedContext, wording: GenTunePrompt, negatives: bool, mixture: Mixture, rng: Random
) -> list[tuple[str, AnnotatedPair]]:
    """The questions that become rows, with their pairs."""
    questions = [
        wording.user_text(context.text, pair.head, pair.tail, pair.head_type, pair.tail_type) for pair in context.pairs
    ]
    return [(questions[i], context.pairs[i]) for i in _chosen(context.pairs, questions, negatives, mixture, rng)]


def _check(
    contexts: Sequence[AnnotatedContext], schema: Schema, mixture: Mixture, demonstrations: Demonstrations | None
) -> None:
    for pair in (pair for context in contexts for pair in context.pairs):
        for label in pair.labels:
            if label not in schema:
                raise DataError(
                    f"The pair ({pair.head!r}, {pair.tail!r}) holds {label!r}, which is no label of the schema "
                    f"{schema.name!r}. Expected one of: {', '.join(schema.names)}."
                )
    _ = mixture.label_wordings  # a file that cannot be read is an error also where no draw would look into it
    if mixture.examples is not None and max(mixture.examples) and not demonstrations:
        raise ConfigError(
            f"mixture.examples is {list(mixture.examples)}, and there is nothing to draw demonstrations from. Expected "
            "annotated contexts, or null for the prompt's own examples."
        )


# Which pairs


def _chosen(
    pairs: Sequence[AnnotatedPair], questions: Sequence[str], negatives: bool, mixture: Mixture, rng: Random
) -> list[int]:
    """Positions of the pairs that become rows, in the order in which the component asks."""
    positives = [i for i, pair in enumerate(pairs) if pair.labels]
    if not negatives:
        return positives
    answered = {questions[i] for i in positives}
    empty = [i for i, pair in enumerate(pairs) if not pair.labels and (pair.stated or questions[i] not in answered)]
    kept = {i for i in empty if pairs[i].stated}
    if mixture.both_orders:
        kept |= _turned(pairs, positives, empty)
    others = [i for i in empty if i not in kept]
    wanted = _wanted(len(positives), mixture, rng)
    n = len(others) if wanted is None else min(len(others), max(0, wanted - len(kept)))
    return sorted({*positives, *kept, *rng.sample(others, n)})


def _turned(pairs: Sequence[AnnotatedPair], positives: Sequence[int], empty: Sequence[int]) -> set[int]:
    """Of the pairs that hold nothing, the other order of each that holds something: the first that reads so."""
    first: dict[tuple[str, ...], int] = {}
    for i in empty:
        pair = pairs[i]
        first.setdefault((pair.head, pair.head_type, pair.tail, pair.tail_type), i)
    keys = ((pairs[i].tail, pairs[i].tail_type, pairs[i].head, pairs[i].head_type) for i in positives)
    return {first[key] for key in keys if key in first}


def _wanted(n_positives: int, mixture: Mixture, rng: Random) -> int | None:
    """How many negatives a group has; None: all."""
    if not n_positives:
        return mixture.negatives_alone
    if mixture.negatives is None:
        return None
    whole, fraction = divmod(mixture.negatives * n_positives, 1)
    return int(whole) + (rng.random() < fraction)


# What the prompt looks like


def _look(wording: GenTunePrompt, mixture: Mixture, rng: Random) -> GenTunePrompt:
    """Draw system text, user turn and whether labels are explained."""
    # Each is drawn whether or not it can matter, so that one setting does not shift the draws of the others.
    generic, typed, explained = rng.random(), rng.random(), rng.random()
    if generic < mixture.generic:
        wording = replace(wording, system=make_gentune_prompt(system="generic").system)
    if typed < mixture.types:
        wording = replace(wording, user=mixture.typed_text)
    if mixture.definitions is not None:
        wording = replace(wording, descriptions=explained < mixture.definitions)
    return wording


def _own_examples(wording: GenTunePrompt, schema: Schema) -> tuple[GenTunePrompt, set[str]]:
    """The wording with its examples' answers as names of labels, and the labels among them, which must be listed."""
    names = {label.prompt: label.name for label in schema}
    examples = tuple(
        replace(e, label=names.get(e.label, e.label)) if e.label not in schema else e for e in wording.examples
    )
    return replace(wording, examples=examples), {e.label for e in examples if e.label in schema}


def _listed(schema: Schema, needed: set[str], lists: bool, mixture: Mixture, rng: Random) -> Schema:
    """The labels to choose from: all that are needed, others drawn up to a drawn length."""
    if not lists or (mixture.min_labels is None and mixture.max_labels is None):
        return schema
    most = min(mixture.max_labels or len(schema), len(schema))
    n = rng.randint(min(mixture.min_labels or 1, most), most)
    others = [label.name for label in schema if label.name not in needed]
    kept = needed.union(rng.sample(others, min(len(others), max(0, n - len(needed)))))
    return replace(schema, labels=tuple(label for label in schema if label.name in kept))


def _renamed(
    schema: Schema, shown: Schema, negative: Label | None, wording: GenTunePrompt, mixture: Mixture, rng: Random
) -> tuple[Schema, Label | None]:
    """The labels with the names and definitions that a group draws; one text never stands for two labels."""
    if "{labels}" not in wording.system or not (mixture.paraphrases or mixture.definitions):
        return shown, negative
    # A label's own text stays taken when it goes by another: the model knows it as that label's.
    taken = {label.prompt for label in schema} | {label.name for label in schema}
    if negative is not None:
        taken |= {negative.prompt, negative.name}
    labels = tuple(_drawn(label, taken, mixture, rng) for label in shown)
    if negative is None:
        return replace(shown, labels=labels), None
    negative = _drawn(negative, taken, mixture, rng)
    return replace(shown, labels=labels, negative=negative, no_relation=negative.name), negative


def _drawn(label: Label, taken: set[str], mixture: Mixture, rng: Random) -> Label:
    known = mixture.label_wordings.get(label.name, LabelWordings())
    if rng.random() < mixture.paraphrases:
        free = [text for text in known.paraphrases if text not in taken]
        if free:
            label = replace(label, prompt=rng.choice(free))
            taken.add(label.prompt)
    texts = [*([label.description] if label.description else []), *known.definitions]
    if mixture.definitions and texts:
        label = replace(label, description=rng.choice(texts))
    return label


def _ordered(
    schema: Schema, negative: Label | None, wording: GenTunePrompt, mixture: Mixture, rng: Random
) -> GenTunePrompt:
    """The wording with the labels written into it in random order, if that is drawn."""
    if rng.random() >= mixture.shuffle_labels or "{labels}" not in wording.system:
        return wording
    labels = [*schema, *([negative] if negative is not None else [])]
    rng.shuffle(labels)
    # Lists of one label each: how a label is listed stays the wording's business.
    listed = ", ".join(wording.label_list(Schema((label,)), None) for label in labels)
    return replace(wording, system=wording.system.replace("{labels}", listed))
