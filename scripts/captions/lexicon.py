"""The words of the embedded corpus: German on the left, English on the right.

Each table below is one word a line. A hyphen stands for "nothing", an underscore for the space
inside an English name of two words (``Fußballspieler`` = ``football player``). German forms that
follow a rule are made elsewhere; the tables list only what must be learnt.
"""

from __future__ import annotations

from typing import NamedTuple


class Adjective(NamedTuple):
    """An adjective; its English word depends on the class of the noun it stands with."""

    de: str
    stem: str  # what the endings are put on: "teuer" becomes "teur"
    en: str
    special: dict[str, str]  # noun class -> English word where it is not `en`: "groß" is "tall"


class Noun(NamedTuple):
    """A noun with its forms, its class and what may be said of it."""

    de: str
    gender: str  # m, f or n
    plural: str
    oblique: str  # accusative and dative singular; differs from `de` in the n-declension
    en: tuple[str, ...]
    en_plural: tuple[str, ...]
    kind: str  # the class that verbs select: a key of ADJECTIVES_OF
    pronoun: str  # he, she, it; "" where no pronoun sounds right


class Place(NamedTuple):
    """A place and the prepositions it takes: (German, German case, English words)."""

    noun: Noun
    where: tuple[str, str, tuple[str, ...]]
    whither: tuple[str, str, tuple[str, ...]]


class Verb(NamedTuple):
    """A verb, the frame of its objects and the noun classes it selects."""

    de: str
    singular: str  # third person singular without the separable prefix
    prefix: str  # separable prefix or ""
    en: str
    en_singular: str
    en_ing: str
    particle: str  # English particle or ""
    frame: str  # none, acc, dat, give, move, or German preposition:case:English words
    subjects: tuple[str, ...]
    objects: tuple[str, ...]

    @property
    def plural(self) -> str:
        """The third person plural without the prefix, which is the infinitive."""
        return self.de[len(self.prefix) :]


class Modal(NamedTuple):
    """A modal verb and the English words before the infinitive."""

    singular: str
    plural: str
    en_singular: tuple[str, ...]
    en_plural: tuple[str, ...]


class Time(NamedTuple):
    """A time adverbial, word by word; habitual ones call for the English simple present."""

    de: tuple[str, ...]
    en: tuple[tuple[str, int], ...]  # English word, position of its German word
    habitual: bool


_ADJECTIVES = """
alt old | jung young | groß big adult=tall | klein small child=little | freundlich friendly
müde tired | fröhlich cheerful | lachend laughing | stark strong | elegant elegant
neugierig curious | hungrig hungry | nass wet | rot red | blau blue | grün green | gelb yellow
schwarz black | weiß white | braun brown | neu new | schwer heavy | kaputt broken
schmutzig dirty | teuer expensive | frisch fresh | ruhig quiet | schön beautiful | leer empty
"""

# Which adjectives go with which class of nouns, so that no apple is broken and no street hungry.
_ADJECTIVES_OF = {
    "adult": "alt jung groß freundlich müde fröhlich lachend stark elegant",
    "child": "klein freundlich müde fröhlich lachend neugierig hungrig",
    "animal": "alt jung groß klein müde neugierig hungrig nass schwarz weiß braun",
    "livestock": "alt jung groß müde stark hungrig nass schwarz weiß braun",
    "toy": "alt groß klein nass rot blau grün gelb weiß neu",
    "text": "alt groß klein nass neu schmutzig teuer",
    "food": "groß klein frisch teuer",
    "instrument": "alt rot schwarz weiß braun neu kaputt teuer",
    "vehicle": "alt rot blau grün gelb schwarz weiß neu kaputt schmutzig teuer",
    "bag": "alt groß klein rot blau grün schwarz braun neu schwer",
    "gadget": "alt groß klein rot blau gelb schwarz neu teuer",
    "seat": "alt klein nass rot grün weiß braun neu kaputt",
    "tree": "alt groß klein grün schön",
    "garment": "alt elegant nass rot blau grün gelb schwarz weiß braun neu schmutzig teuer",
    "nature": "groß klein ruhig schön",
    "town": "alt groß klein ruhig schön leer",
    "indoors": "alt groß klein ruhig schön leer",
}

# German, gender, plural, English, English plural, class, pronoun; * marks the n-declension.
_NOUNS = """
Mann m Männer man men adult he
Frau f Frauen woman women adult she
Polizist* m Polizisten police_officer police_officers adult he
Fußballspieler m Fußballspieler football_player football_players adult he
Straßenmusiker m Straßenmusiker street_musician street_musicians adult he
Bauarbeiter m Bauarbeiter construction_worker construction_workers adult he
Ärztin f Ärztinnen doctor doctors adult she
Lehrerin f Lehrerinnen teacher teachers adult she
Tänzerin f Tänzerinnen dancer dancers adult she
Großmutter f Großmütter grandmother grandmothers adult she
Junge* m Jungen boy boys child he
Mädchen n Mädchen girl girls child she
Kind n Kinder child children child -
Hund m Hunde dog dogs animal it
Katze f Katzen cat cats animal it
Affe* m Affen monkey monkeys animal it
Kaninchen n Kaninchen rabbit rabbits animal it
Ente f Enten duck ducks animal it
Pferd n Pferde horse horses livestock it
Kuh f Kühe cow cows livestock it
Ball m Bälle ball balls toy it
Papierflieger m Papierflieger paper_plane paper_planes toy it
Buch n Bücher book books text it
Zeitung f Zeitungen newspaper newspapers text it
Apfel m Äpfel apple apples food it
Brötchen n Brötchen bread_roll bread_rolls food it
Geburtstagskuchen m Geburtstagskuchen birthday_cake birthday_cakes food it
Gitarre f Gitarren guitar guitars instrument it
Klavier n Klaviere piano pianos instrument it
Auto n Autos car cars vehicle it
Fahrrad n Fahrräder bicycle bicycles vehicle it
Kinderwagen m Kinderwagen baby_carriage baby_carriages vehicle it
Koffer m Koffer suitcase suitcases bag it
Tasche f Taschen bag bags bag it
Regenschirm m Regenschirme umbrella umbrellas gadget it
Kamera f Kameras camera cameras gadget it
Wasserflasche f Wasserflaschen water_bottle water_bottles gadget it
Stuhl m Stühle chair chairs seat it
Bank f Bänke bench benches seat it
Baum m Bäume tree trees tree it
Hut m Hüte hat hats garment it
Mantel m Mäntel coat coats garment it
Jacke f Jacken jacket jackets garment it
Hemd n Hemden shirt shirts garment it
"""

# German, gender, English, class, where, whither.
_PLACES = """
Park m park nature in:dat:in durch:acc:through
Garten m garden nature in:dat:in in:acc:into
Wiese f meadow nature auf:dat:in über:acc:across
Wald m forest nature in:dat:in durch:acc:through
Strand m beach nature an:dat:at zu:dat:to
See m lake nature an:dat:by um:acc:around
Straße f street town auf:dat:on über:acc:across
Brücke f bridge town auf:dat:on zu:dat:to
Bahnhof m station town an:dat:at zu:dat:to
Spielplatz m playground town auf:dat:on zu:dat:to
Markt m market town auf:dat:at zu:dat:to
Haus n house town vor:dat:in_front_of in:acc:into
Küche f kitchen indoors in:dat:in in:acc:into
Museum n museum indoors in:dat:in in:acc:into
Einkaufszentrum n shopping_centre indoors in:dat:in in:acc:into
"""

_GROUPS = {
    "person": ("adult", "child"),
    "beast": ("animal", "livestock"),
    "thing": ("toy", "text", "food", "bag", "gadget"),
}

# German infinitive, third person singular, prefix, English base, -s, -ing, particle, frame,
# subjects, objects.
_VERBS = """
tragen trägt - wear wears wearing - acc person garment
tragen trägt - carry carries carrying - acc person thing
halten hält - hold holds holding - acc person thing
lesen liest - read reads reading - acc person text
essen isst - eat eats eating - acc person food
werfen wirft - throw throws throwing - acc person toy
fangen fängt - catch catches catching - acc person,animal toy
kaufen kauft - buy buys buying - acc adult thing,garment,vehicle,instrument
waschen wäscht - wash washes washing - acc person vehicle,garment,animal
reparieren repariert - repair repairs repairing - acc adult vehicle,instrument,seat
füttern füttert - feed feeds feeding - acc person beast
streicheln streichelt - pet pets petting - acc person beast
malen malt - paint paints painting - acc person beast,tree,vehicle,seat
fotografieren fotografiert - photograph photographs photographing - acc adult person,beast,tree
beobachten beobachtet - watch watches watching - acc person,animal person,beast
suchen sucht - look looks looking for acc person thing,garment,animal
schieben schiebt - push pushes pushing - acc person vehicle
ziehen zieht - pull pulls pulling - acc person,livestock vehicle
umarmen umarmt - hug hugs hugging - acc person person
spielen spielt - play plays playing - acc person instrument
aufheben hebt auf pick picks picking up acc person thing
wegwerfen wirft weg throw throws throwing away acc person text,food,bag
anziehen zieht an put puts putting on acc person garment
ausziehen zieht aus take takes taking off acc person garment
aufhängen hängt auf hang hangs hanging up acc adult garment
abstellen stellt ab put puts putting down acc person bag
ansehen sieht an look looks looking at acc person,animal person,beast,vehicle,tree
anlächeln lächelt an smile smiles smiling at acc person person
anrufen ruft an call calls calling - acc adult adult
helfen hilft - help helps helping - dat person person
folgen folgt - follow follows following - dat person,beast person,animal
zuhören hört zu listen listens listening to dat person adult
geben gibt - give gives giving - give person thing
zeigen zeigt - show shows showing - give person thing,instrument
warten wartet - wait waits waiting - auf:acc:for person person
sprechen spricht - talk talks talking - mit:dat:to person person
spielen spielt - play plays playing - mit:dat:with child,animal toy
sitzen sitzt - sit sits sitting - auf:dat:on person,animal seat
stehen steht - stand stands standing - neben:dat:next_to person,beast vehicle,tree,seat
liegen liegt - lie lies lying - unter:dat:under animal tree,seat
schlafen schläft - sleep sleeps sleeping - none person,beast -
tanzen tanzt - dance dances dancing - none person -
singen singt - sing sings singing - none person -
arbeiten arbeitet - work works working - none adult -
gehen geht - walk walks walking - move person,beast -
rennen rennt - run runs running - move person,beast -
"""

_STEMS = {"müde": "müd", "teuer": "teur"}

TIMES = (
    Time(("jeden", "Morgen"), (("every", 0), ("morning", 1)), True),
    Time(("jeden", "Abend"), (("every", 0), ("evening", 1)), True),
    Time(("am", "Wochenende"), (("at", 0), ("the", 0), ("weekend", 1)), True),
    Time(("heute",), (("today", 0),), False),
    Time(("am", "Morgen"), (("in", 0), ("the", 0), ("morning", 1)), False),
    Time(("am", "Abend"), (("in", 0), ("the", 0), ("evening", 1)), False),
)

MODALS = (
    Modal("will", "wollen", ("wants", "to"), ("want", "to")),
    Modal("muss", "müssen", ("must",), ("must",)),
    Modal("kann", "können", ("can",), ("can",)),
)
WISHES = MODALS[:2]  # fit to be a reason

# Whole clauses after "weil" and "obwohl": German words, (English word, position of its German one).
WEATHER = (
    (("es", "regnet"), (("it", 0), ("is", 1), ("raining", 1))),
    (("es", "schneit"), (("it", 0), ("is", 1), ("snowing", 1))),
    (("die", "Sonne", "scheint"), (("the", 0), ("sun", 1), ("is", 2), ("shining", 2))),
    (("es", "kalt", "ist"), (("it", 0), ("is", 2), ("cold", 1))),
    (("es", "warm", "ist"), (("it", 0), ("is", 2), ("warm", 1))),
)
CONJUNCTIONS = (("weil", "because"), ("obwohl", "although"))
MOODS = (("müde", "tired"), ("hungrig", "hungry"), ("durstig", "thirsty"), ("krank", "ill"))

CONTRACTIONS = {
    ("in", "dem"): "im",
    ("an", "dem"): "am",
    ("in", "das"): "ins",
    ("zu", "dem"): "zum",
    ("zu", "der"): "zur",
}


def _columns(row: str) -> list[str]:
    return ["" if column == "-" else column for column in row.split()]


def _classes(names: str) -> tuple[str, ...]:
    listed = names.split(",") if names else []
    return tuple(kind for name in listed for kind in _GROUPS.get(name, (name,)))


def _adjectives() -> dict[str, Adjective]:
    entries = [entry.split() for entry in _ADJECTIVES.strip().replace("\n", "|").split("|")]
    return {
        de: Adjective(de, _STEMS.get(de, de), en, dict(s.split("=") for s in special))
        for de, en, *special in entries
    }


def _nouns() -> tuple[Noun, ...]:
    nouns = []
    for row in _NOUNS.strip().splitlines():
        de, gender, plural, en, en_plural, kind, pronoun = _columns(row)
        name, weak = de.rstrip("*"), de.endswith("*")
        english, englishes = tuple(en.split("_")), tuple(en_plural.split("_"))
        oblique = plural if weak else name
        nouns.append(Noun(name, gender, plural, oblique, english, englishes, kind, pronoun))
    return tuple(nouns)


def _places() -> tuple[Place, ...]:
    places = []
    for row in _PLACES.strip().splitlines():
        de, gender, en, kind, *prepositions = row.split()
        where, whither = (frame_of(text) for text in prepositions)
        noun = Noun(de, gender, "", de, tuple(en.split("_")), (), kind, "it")
        places.append(Place(noun, where, whither))
    return tuple(places)


def frame_of(text: str) -> tuple[str, str, tuple[str, ...]]:
    """Split ``auf:acc:for`` into the German preposition, its case and the English words."""
    preposition, case, english = text.split(":")
    return preposition, case, tuple(english.split("_"))


def _verbs() -> tuple[Verb, ...]:
    verbs = []
    for row in _VERBS.strip().splitlines():
        de, singular, prefix, en, en_singular, ing, particle, frame, who, what = _columns(row)
        english = (en, en_singular, ing, particle)
        verbs.append(Verb(de, singular, prefix, *english, frame, _classes(who), _classes(what)))
    return tuple(verbs)


ADJECTIVES = _adjectives()
ADJECTIVES_OF = {kind: tuple(names.split()) for kind, names in _ADJECTIVES_OF.items()}
NOUNS = _nouns()
NOUNS_OF = {kind: tuple(n for n in NOUNS if n.kind == kind) for kind in ADJECTIVES_OF}
PLACES = _places()
VERBS = _verbs()
VERBS_OF = {kind: tuple(v for v in VERBS if kind in v.subjects) for kind in ADJECTIVES_OF}
# Verbs of people that take a noun of a class as accusative object.
VERBS_WITH = {
    kind: tuple(
        v for v in VERBS if v.frame == "acc" and kind in v.objects and "adult" in v.subjects
    )
    for kind in ADJECTIVES_OF
}
