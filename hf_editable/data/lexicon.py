"""The words of the built-in German-English grammar (`grammar.py`), as tables."""

from dataclasses import dataclass


# German, gender, plural | English, its plural where irregular | kinds, which verbs and adjectives select
_NOUNS = """
Mann m Männer | man men | human adult
Frau f Frauen | woman women | human adult
Kind n Kinder | child children | human
Junge m Jungen | boy | human
Mädchen n Mädchen | girl | human
Lehrer m Lehrer | teacher | human adult
Lehrerin f Lehrerinnen | teacher | human adult
Arzt m Ärzte | doctor | human adult
Ärztin f Ärztinnen | doctor | human adult
Nachbar m Nachbarn | neighbour | human adult
Nachbarin f Nachbarinnen | neighbour | human adult
Freund m Freunde | friend | human adult
Schüler m Schüler | pupil | human
Student m Studenten | student | human adult
Gast m Gäste | guest | human adult
Bruder m Brüder | brother | human family
Schwester f Schwestern | sister | human family
Onkel m Onkel | uncle | human family adult
Tante f Tanten | aunt | human family adult
Tochter f Töchter | daughter | human family
Sohn m Söhne | son | human family
Hund m Hunde | dog | animal
Katze f Katzen | cat | animal
Pferd n Pferde | horse | animal
Vogel m Vögel | bird | animal
Buch n Bücher | book | thing readable written small
Brief m Briefe | letter | thing readable written small
Zeitung f Zeitungen | newspaper | thing readable small
Roman m Romane | novel | thing readable written small
Apfel m Äpfel | apple | edible small
Kuchen m Kuchen | cake | edible small
Ei n Eier | egg | edible small
Birne f Birnen | pear | edible small
Orange f Orangen | orange | edible small
Brötchen n Brötchen | roll | edible small
Auto n Autos | car | thing machine costly
Fahrrad n Fahrräder | bicycle;bike | thing machine costly
Uhr f Uhren | watch watches;clock | thing machine small costly
Computer m Computer | computer | thing machine costly
Lampe f Lampen | lamp | thing machine small
Schlüssel m Schlüssel | key | thing small
Tasche f Taschen | bag | thing small costly
Ring m Ringe | ring | thing small costly
Mantel m Mäntel | coat | thing small costly wearable
Hut m Hüte | hat | thing small wearable
Hemd n Hemden | shirt | thing small wearable
Jacke f Jacken | jacket | thing small wearable
Bild n Bilder | picture;painting | thing small costly
Regenschirm m Regenschirme | umbrella | thing small
Tür f Türen | door | openable
Fenster n Fenster | window | openable
Schachtel f Schachteln | box boxes | openable thing small
Koffer m Koffer | suitcase | openable thing small
Tisch m Tische | table | surface thing
Stuhl m Stühle | chair | surface thing
Bank f Bänke | bench benches | surface
Sofa n Sofas | sofa;couch couches | surface thing costly
Bett n Betten | bed | surface thing
Haus n Häuser | house | inside costly building
Garten m Gärten | garden | inside outdoors
Schule f Schulen | school | inside building
Küche f Küchen | kitchen | inside room
Zimmer n Zimmer | room | inside room
Büro n Büros | office | inside room
Park m Parks | park | inside outdoors
Wald m Wälder | forest;wood | inside outdoors
Stadt f Städte | city cities;town | inside settlement
Dorf n Dörfer | village | inside settlement
Land n Länder | country countries | settlement
Kirche f Kirchen | church churches | inside building
Museum n Museen | museum | inside building
Bahnhof m Bahnhöfe | station;train_station | building inside
"""

# The stem that takes endings (teuer: teur-), the form without ending if other | English | kinds
_ADJECTIVES = """
alt | old | adult animal thing openable building inside
jung | young | adult animal
klein | short;small | human
klein | small;little | animal thing edible openable inside
groß | tall | human
groß | big;large | animal thing edible openable inside
freundlich | friendly;kind | human
müde_müd | tired | human animal
klug | clever;smart | human animal
krank | sick;ill | human animal
glücklich | happy | human
reich | rich;wealthy | adult
stark | strong | human animal
neu | new | thing openable building inside
schön | beautiful;lovely | thing building inside animal
teuer_teur | expensive | costly
billig | cheap | costly
rot | red | thing openable
blau | blue | thing openable
grün | green | thing openable
schwarz | black | thing animal
weiß | white | thing animal openable
schwer | heavy | thing
interessant | interesting | readable
langweilig | boring;dull | readable
süß | sweet | edible
frisch | fresh | edible
ruhig | quiet;calm | inside
dunkel_dunkl | dark | inside
berühmt | famous | adult building
"""

# German: infinitive (separable prefix before -), he form, past, participle, auxiliary | English: base or
# base,past,participle, then +particle or ~preposition | frame | kinds of subject | kinds of object | s: stative
_VERBS = """
sehen sieht sah gesehen h | see,saw,seen | acc | human | human animal thing building | s
hören hört hörte gehört h | hear,heard,heard | acc | human | human animal | s
kennen kennt kannte gekannt h | know,knew,known | acc | human | human building | s
lieben liebt liebte geliebt h | love | acc | human | human animal building | s
vergessen vergisst vergaß vergessen h | forget,forgot,forgotten | acc | human | readable wearable small | s
brauchen braucht brauchte gebraucht h | need | acc | human | thing edible | s
kaufen kauft kaufte gekauft h | buy,bought,bought | acc | human | thing edible |
verkaufen verkauft verkaufte verkauft h | sell,sold,sold | acc | human | thing edible |
suchen sucht suchte gesucht h | look~for;search~for | acc | human | human animal small |
finden findet fand gefunden h | find,found,found | acc | human | small animal | s
verlieren verliert verlor verloren h | lose,lost,lost | acc | human | small |
lesen liest las gelesen h | read,read,read | acc | human | readable |
schreiben schreibt schrieb geschrieben h | write,wrote,written | acc | human | written |
essen isst aß gegessen h | eat,ate,eaten | acc | human animal | edible |
tragen trägt trug getragen h | wear,wore,worn | acc | human | wearable |
tragen trägt trug getragen h | carry | acc | human | openable+thing readable |
öffnen öffnet öffnete geöffnet h | open | acc | human | openable |
reparieren repariert reparierte repariert h | repair;fix | acc | human | machine |
verstecken versteckt versteckte versteckt h | hide,hid,hidden | acc | human | small |
malen malt malte gemalt h | paint | acc | human | human animal building |
besuchen besucht besuchte besucht h | visit | acc | human | human building |
fragen fragt fragte gefragt h | ask | acc | human | human |
treffen trifft traf getroffen h | meet,met,met | acc | human | human |
an-rufen ruft rief angerufen h | call;phone | acc | human | human |
ab-holen holt holte abgeholt h | pick+up;collect | acc | human | human small |
ein-laden lädt lud eingeladen h | invite | acc | human | human |
mit-bringen bringt brachte mitgebracht h | bring,brought,brought+along | acc | human | small |
weg-werfen wirft warf weggeworfen h | throw,threw,thrown+away | acc | human | small |
auf-machen macht machte aufgemacht h | open | acc | human | openable |
zu-machen macht machte zugemacht h | close;shut,shut,shut | acc | human | openable |
auf-räumen räumt räumte aufgeräumt h | tidy+up;clean+up | acc | human | room |
an-ziehen zieht zog angezogen h | put,put,put+on | acc | human | wearable |
helfen hilft half geholfen h | help | dat | human | human |
danken dankt dankte gedankt h | thank | dat | human | human |
folgen folgt folgte gefolgt s | follow | dat | human animal | human animal |
antworten antwortet antwortete geantwortet h | answer;reply~to | dat | human | human |
vertrauen vertraut vertraute vertraut h | trust | dat | human | human | s
glauben glaubt glaubte geglaubt h | believe | dat | human | human | s
zu-hören hört hörte zugehört h | listen~to | dat | human | human |
zu-sehen sieht sah zugesehen h | watch | dat | human | human animal |
gehören gehört gehörte gehört h | belong~to | dat | thing animal building | human | s
gefallen gefällt gefiel gefallen h | like | please | thing building room | human | s
geben gibt gab gegeben h | give,gave,given | dat_acc | human | small edible |
zeigen zeigt zeigte gezeigt h | show,showed,shown | dat_acc | human | small building room |
schenken schenkt schenkte geschenkt h | give,gave,given | dat_acc | human | thing |
bringen bringt brachte gebracht h | bring,brought,brought | dat_acc | human | small edible |
schicken schickt schickte geschickt h | send,sent,sent | dat_acc | human | readable small |
warten_auf_acc wartet wartete gewartet h | wait~for | prep | human | human |
denken_an_acc denkt dachte gedacht h | think,thought,thought~of | prep | human | human building |
lachen_über_acc lacht lachte gelacht h | laugh~at;laugh~about | prep | human | human readable |
auf-passen_auf_acc passt passte aufgepasst h | look~after;take,took,taken~care of | prep | human | human animal |
sprechen_mit_dat spricht sprach gesprochen h | talk~to;speak,spoke,spoken~with | prep | human | human |
träumen_von_dat träumt träumte geträumt h | dream~of;dream~about | prep | human | human building costly |
spielen_mit_dat spielt spielte gespielt h | play~with | prep | human animal | human animal |
gehen geht ging gegangen s | go,went,gone;walk | toward | human | |
laufen läuft lief gelaufen s | run,ran,run | toward | human animal | |
kommen kommt kam gekommen s | come,came,come | toward | human | |
arbeiten arbeitet arbeitete gearbeitet h | work | at | human | |
schlafen schläft schlief geschlafen h | sleep,slept,slept | at | human animal | |
sitzen sitzt saß gesessen h | sit,sat,sat | at | human animal | |
warten wartet wartete gewartet h | wait | at | human | |
spielen spielt spielte gespielt h | play | at | human animal | |
tanzen tanzt tanzte getanzt h | dance | at | human | |
wohnen wohnt wohnte gewohnt h | live | in | human | | s
an-kommen kommt kam angekommen s | arrive | in | human | |
ein-schlafen schläft schlief eingeschlafen s | fall,fell,fallen+asleep | at | human animal | |
legen legt legte gelegt h | put,put,put;lay,laid,laid | put | human | small |
liegen liegt lag gelegen h | lie,lay,lain | lie | small | |
"""

# German | English | tenses that it allows: p present, n present in progress, h habit, t past, f future; ! not at the
# start of a sentence; m: its English stands before the verb
_TIMES = """
gestern | yesterday | t
gestern Abend | yesterday evening;last night | t
letzte Woche | last week | t
am Montag | on Monday | tf
vor zwei Tagen | two days ago | t
heute | today | tf
heute Morgen | this morning | t
jetzt | now | n
gerade | right now;at the moment | n!
morgen | tomorrow | f
morgen Abend | tomorrow evening;tomorrow night | f
nächste Woche | next week | f
bald | soon | f
jeden Tag | every day | h
oft | often | hm!
immer | always | hm!
manchmal | sometimes | hm
"""


@dataclass(frozen=True)
class Noun:
    """A German noun with its English renderings, each a (singular, plural)."""

    german: str
    gender: str
    plural: str
    english: tuple[tuple[str, str], ...]
    kinds: frozenset[str]

    @property
    def weak(self) -> bool:
        """Whether the noun ends in -n in all cases but the nominative (der Junge, den Jungen)."""
        return self.german in ("Junge", "Nachbar", "Student")


@dataclass(frozen=True)
class Adjective:
    """A German adjective: its stem for endings, its form without one, English renderings, what it can describe."""

    stem: str
    predicate: str
    english: tuple[str, ...]
    kinds: frozenset[str]


@dataclass(frozen=True)
class EnglishVerb:
    """Base, past and participle of an English verb, and the particle or preposition that goes with it."""

    base: str
    past: str
    participle: str
    particle: str = ""
    preposition: str = ""


@dataclass(frozen=True)
class Verb:
    """A German verb with its English renderings, its frame of objects, and what can be its subject and object."""

    infinitive: str
    third: str
    past: str
    participle: str
    auxiliary: str
    prefix: str
    preposition: str
    case: str
    english: tuple[EnglishVerb, ...]
    frame: str
    subjects: frozenset[str]
    objects: tuple[str, ...]
    stative: bool


@dataclass(frozen=True)
class Time:
    """An adverb of time: its renderings, the tenses that it allows, and where it may stand."""

    german: str
    english: tuple[str, ...]
    tenses: str
    can_front: bool
    before_verb: bool


def plural_or_third(word: str) -> str:
    """Add the English -s of a plural or of a third person: books, boxes, carries, plays."""
    if word.endswith(("s", "sh", "ch", "x", "z")) or word in ("go", "do"):
        return word + "es"
    return word[:-1] + "ies" if word.endswith("y") and word[-2] not in "aeiou" else word + "s"


def _fields(table: str) -> list[list[str]]:
    return [[field.strip() for field in line.split("|")] for line in table.strip().splitlines()]


def _noun(german: str, english: str, kinds: str) -> Noun:
    word, gender, plural = german.split()
    names = [name.split() for name in english.split(";")]
    # An underscore is a space inside a name.
    forms = [(name[0], name[1] if len(name) > 1 else plural_or_third(name[0])) for name in names]
    forms = [(singular.replace("_", " "), plural.replace("_", " ")) for singular, plural in forms]
    return Noun(word, gender, plural, tuple(forms), frozenset(kinds.split()))


def _adjective(german: str, english: str, kinds: str) -> Adjective:
    predicate, _, stem = german.partition("_")
    return Adjective(stem or predicate, predicate, tuple(english.split(";")), frozenset(kinds.split()))


def _english_verb(text: str) -> EnglishVerb:
    text, _, preposition = text.partition("~")
    forms, _, particle = text.partition("+")
    base, *irregular = forms.split(",")
    regular = base + "d" if base.endswith("e") else base + "ed"
    if base.endswith("y") and base[-2] not in "aeiou":
        regular = base[:-1] + "ied"
    past, participle = irregular or (regular, regular)
    return EnglishVerb(base, past, participle, particle, preposition)


def _verb(german: str, english: str, frame: str, subjects: str, objects: str, stative: str) -> Verb:
    infinitive, third, past, participle, auxiliary = german.split()
    infinitive, preposition, case = (*infinitive.split("_"), "", "")[:3]
    prefix, _, base = infinitive.rpartition("-")
    return Verb(
        base, third, past, participle, auxiliary, prefix, preposition, case,
        tuple(map(_english_verb, english.split(";"))), frame, frozenset(subjects.split()), tuple(objects.split()),
        stative == "s",
    )  # fmt: skip


def _time(german: str, english: str, tenses: str) -> Time:
    return Time(german, tuple(english.split(";")), tenses, "!" not in tenses, "m" in tenses)


NOUNS = [_noun(*row) for row in _fields(_NOUNS)]
ADJECTIVES = [_adjective(*row) for row in _fields(_ADJECTIVES)]
VERBS = [_verb(*row) for row in _fields(_VERBS)]
TIMES = [_time(*row) for row in _fields(_TIMES)]

# Prepositions by use: German, its case, English renderings, kinds of its noun.
LOCATIONS = [
    ("in", "dat", ("in",), "inside"), ("vor", "dat", ("in front of", "outside"), "building"),
    ("hinter", "dat", ("behind",), "building"), ("neben", "dat", ("next to", "beside"), "building"),
]  # fmt: skip
SEATS = [
    ("auf", "dat", ("on",), "surface"), ("unter", "dat", ("under",), "surface"),
    ("neben", "dat", ("next to", "beside"), "surface"),
]  # fmt: skip
DIRECTIONS = [
    ("in", "acc", ("into",), "inside"), ("zu", "dat", ("to",), "building"), ("durch", "acc", ("through",), "outdoors"),
    ("aus", "dat", ("out of",), "building"), ("hinter", "acc", ("behind",), "building"),
]  # fmt: skip
PLACES = [("auf", ("on",), "surface"), ("unter", ("under",), "surface"), ("hinter", ("behind",), "surface"),
           ("neben", ("next to", "beside"), "small"), ("vor", ("in front of",), "openable")]  # fmt: skip
INTRODUCTIONS = [
    ("Ich weiß", "I know"), ("Ich glaube", "I think;I believe"), ("Ich hoffe", "I hope"), ("Wir wissen", "We know"),
    ("Wir hoffen", "We hope"), ("Er sagt", "He says"), ("Sie sagt", "She says"),
    ("Wir glauben", "We think;We believe"), ("Du weißt", "You know"), ("Sie glauben", "They think;They believe"),
]  # fmt: skip
