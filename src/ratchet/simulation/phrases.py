"""What fills the wordings, what stands around them and how people type.

Data only. In a slot's values `_` becomes a random digit and `^` a random digit other than 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Lists read better side by side.
# fmt: off
_PRODUCTS = (
    "Aria 2 headset", "Kestrel 15 laptop", "Pebble X speaker", "Lumen 27 monitor",
    "Orbit smartwatch", "Nimbus tablet", "Tern phone", "Tern Pro phone", "Halo doorbell",
    "Vega soundbar", "Sprint e-reader", "Otter action camera", "Quill keyboard", "Delta router",
    "Mosaic printer", "Cobalt game console", "Sable mouse", "Juno robot vacuum", "Atlas power bank",
    "Ember projector", "Iris webcam", "Rook mini PC", "Swift drone", "headset", "laptop", "phone",
    "tablet", "TV", "router", "smartwatch", "speaker", "printer", "monitor",
)
SLOTS: Mapping[str, tuple[str, ...]] = {
    "product": _PRODUCTS,
    "other": _PRODUCTS,
    "computer": (
        "laptop", "Kestrel 15 laptop", "Rook mini PC", "Nimbus tablet", "tablet", "phone",
        "Tern Pro phone", "Cobalt game console",
    ),
    "screen": (
        "laptop", "tablet", "phone", "monitor", "TV", "smartwatch", "Kestrel 15 laptop",
        "Lumen 27 monitor", "Nimbus tablet", "Tern phone", "Sprint e-reader", "Orbit smartwatch",
    ),
    "battery": (
        "headset", "laptop", "phone", "tablet", "smartwatch", "Aria 2 headset", "Tern Pro phone",
        "Pebble X speaker", "Otter action camera", "Swift drone", "Sprint e-reader",
        "Kestrel 15 laptop", "Juno robot vacuum",
    ),
    "portable": (
        "Aria 2 headset", "Orbit smartwatch", "Pebble X speaker", "Otter action camera",
        "Tern phone", "Sprint e-reader", "Nimbus tablet", "headset", "phone", "tablet",
        "smartwatch",
    ),
    "connected": (
        "Halo doorbell", "Mosaic printer", "printer", "TV", "smartwatch", "headset",
        "Juno robot vacuum", "Pebble X speaker", "Vega soundbar", "Aria 2 headset",
        "Orbit smartwatch", "Otter action camera",
    ),
    "audio": (
        "Aria 2 headset", "headset", "Pebble X speaker", "Vega soundbar", "TV", "speaker",
    ),
    "microphone": ("Aria 2 headset", "headset", "Tern phone", "laptop", "Iris webcam"),
    "fan": (
        "laptop", "Kestrel 15 laptop", "Rook mini PC", "Cobalt game console", "Ember projector",
    ),
    "plugin": (
        "charger", "USB-C cable", "docking station", "SD card", "stylus", "HDMI adapter",
    ),
    "system": ("Windows 11", "my Mac", "Android", "my iPhone", "Linux", "an iPad"),
    "thing": ("phone", "laptop", "tablet", "doorbell", "camera", "TV", "speaker", "headset"),
    "part": (
        "charger", "USB-C cable", "power supply", "remote", "docking station", "SD card", "stylus",
        "wall mount", "spare battery", "HDMI adapter", "charging case", "keyboard cover",
    ),
    "pair": (
        "Tern phone and the Tern Pro phone", "Kestrel 15 laptop and the Rook mini PC",
        "Pebble X speaker and the Vega soundbar", "Nimbus tablet and the Sprint e-reader",
        "Aria 2 headset and the older one", "Orbit smartwatch and the cheaper one",
    ),
    "use": (
        "video editing", "school", "gaming", "video calls", "my mum", "photo editing",
        "a ten year old", "working from home", "watching films", "a student",
    ),
    "order": ("^____", "#^____", "EL-^_____", "^_______"),
    "amount": ("£^_.99", "$^_", "€^__", "^_.50 euros", "£^__", "$^_.49", "^_ pounds"),
    "fee": ("£^.50", "$^", "€^.99", "£1^", "^ euros", "$2^.50"),
    "voucher": ("SAVE^_", "WELCOME^_", "SPRING^_", "THANKS^_"),
    "code": ("error ^__", "error E^_", "code 0x8^___", "ERR-^_", "fault ^_"),
    "when": (
        "yesterday", "last week", "on Monday", "on Friday", "last Tuesday", "two weeks ago",
        "three days ago", "on the 1^th", "on ^ May", "on 2^ October", "last month",
        "the day before yesterday",
    ),
    "day": (
        "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "the 1^th", "^ June",
        "2^ March",
    ),
    "duration": (
        "two days", "three days", "a week", "over a week", "ten days", "two weeks", "three weeks",
        "a month", "nearly two months",
    ),
    "carrier": ("the courier", "the driver", "ParcelJet", "SwiftPost", "your delivery guy"),
    "town": ("Leeds", "Porto", "Lyon", "Krakow", "Austin", "Ghent", "Malmo", "Cork", "Turin"),
    "country": (
        "Norway", "Malta", "Switzerland", "Canada", "Iceland", "Cyprus", "Ireland", "New Zealand",
    ),
    "payment": ("PayPal", "Visa", "my credit card", "Apple Pay", "Klarna", "bank transfer"),
    "platform": (
        "Windows 11", "my Mac", "Android", "my iPhone", "Linux", "an iPad", "Firefox",
        "my work laptop",
    ),
    "plan": (
        "Plus plan", "Plus membership", "premium plan", "family plan", "Plus subscription",
        "student plan", "yearly plan",
    ),
    "person": ("dad", "sister", "boyfriend", "girlfriend", "nephew", "parents", "grandma"),
    "email": ("m.harris@example.com", "lena.k@example.org", "jo.w@example.net"),
}

_ANYBODY = (
    "I've been a customer for years.", "nice shop otherwise.", "I already wrote to you {when}.",
    "I asked on chat {when} and got no answer.", "I'm writing for my {person}.",
    "my last order, the {other}, was delivered in a day.",
    "the refund for my {other} last year was quick.", "I looked through the help pages first.",
)
_BUYER = (
    *_ANYBODY, "I have the {plan}, if that matters.",
    "paid with {payment} as always, no problem there.", "it's a present for my {person}.",
    "the tracking and the invoice for my {other} were fine.",
    "my password and everything else works.",
)
_MEMBER = (
    *_ANYBODY, "I use the app on {platform}.", "I was about to order the {other}.",
    "payment details are all correct.", "my {other} from you works great, no complaints.",
    "I don't need a refund, I just want this solved.",
)
_VISITOR = (
    *_ANYBODY, "I have the {plan}, if that matters.", "I'm comparing a few shops.",
    "my old one was stolen {when}.", "my old one broke {when}.",
    "I returned the {other} {when} and want something else.",
    "I can log in but could not find it on the website.", "if so I'd order and pay today.",
)
CONTEXTS: Mapping[str, tuple[str, ...]] = {
    "billing": (
        *_BUYER, "the parcel came on time but", "returning my {other} was easy but",
        "I can sign in fine but", "the {plan} itself is great but",
    ),
    "refunds": (
        *_BUYER, "delivery was quick but", "paying was easy but", "I'm keeping the {plan} but",
        "the invoice is correct but",
    ),
    "delivery": (
        *_BUYER, "the payment went through but", "the invoice is fine but",
        "the app says all is well but", "I don't want my money back yet but",
    ),
    "technical": (
        *_BUYER, "delivery was quick but", "I don't want a refund but", "I can log in fine but",
        "it was not cheap and",
    ),
    "account access": (
        *_MEMBER, "the app itself works but", "my {plan} is still paid but",
        "I don't think I was hacked but", "I have a parcel on the way and",
    ),
    "subscription": (
        *_MEMBER, "I can log in fine but", "my last bill was right but",
        "I don't want any money back but", "delivery is always quick but",
    ),
    "security": (
        *_MEMBER, "my password still works but", "the app works as usual but",
        "I have nothing on order but", "I want to stay a customer but",
    ),
    "product questions": (
        *_VISITOR, "your delivery times look good but", "I've read the return rules but",
        "the {plan} sounds nice but", "paying by {payment} is fine for me but",
    ),
}
# fmt: on


@dataclass(frozen=True, slots=True)
class Tone:
    """How somebody writes; shares are chances in [0, 1] per message.

    Attributes:
        weight: Relative frequency of the tone.
        openings: What may stand before the matter.
        closings: What may stand after it.
        fragment: Chance of a fragment instead of a sentence.
        context: Chance of something beside the matter.
        slang: Chance of chat abbreviations.
        typos: Chance of one typo; a second one follows with the same chance.
        lower: Chance that all is in lower case.
        shout: Chance that the matter is in capitals.
        no_stop: Chance that the last full stop is missing.
        exclaim: Chance that full stops at the end become exclamation marks.
    """

    weight: float
    openings: tuple[str, ...]
    closings: tuple[str, ...]
    opening: float
    closing: float
    fragment: float
    context: float
    slang: float
    typos: float
    lower: float
    shout: float
    no_stop: float
    exclaim: float


# fmt: off
PLAIN = Tone(
    weight=0.36,
    openings=("hi,", "hello,", "hi there,", "question:", "hey,", "hello again,"),
    closings=("thanks.", "what can I do?", "please advise.", "any help?", "can you check?"),
    opening=0.35, closing=0.3, fragment=0.12, context=0.4, slang=0.05, typos=0.15, lower=0.1,
    shout=0.0, no_stop=0.25, exclaim=0.03,
)
POLITE = Tone(
    weight=0.2,
    openings=(
        "good morning,", "good evening,", "dear support team,", "hello, I hope you can help.",
        "sorry to bother you,", "hi, hope you're well.", "dear all,", "excuse me,",
    ),
    closings=(
        "thank you in advance.", "kind regards, Marta", "many thanks, Tom",
        "could you please look into it?", "I'd be grateful for your help.", "best wishes, Ines",
        "thank you so much!", "no rush, thanks.",
    ),
    opening=0.75, closing=0.7, fragment=0.05, context=0.45, slang=0.0, typos=0.08, lower=0.02,
    shout=0.0, no_stop=0.05, exclaim=0.03,
)
CASUAL = Tone(
    weight=0.28,
    openings=(
        "yo", "hey", "hey guys,", "ok so", "so", "ngl", "bruh", "omg", "um,", "heyy", "tbh", "hi!",
        "quick one:", "guys",
    ),
    closings=(
        "thx", "pls help", "any idea?", "lol", "asap pls", "help", "thx 🙏", "idk what to do",
        "cheers", "kinda urgent", "😭", "ty!",
    ),
    opening=0.5, closing=0.45, fragment=0.3, context=0.25, slang=0.7, typos=0.35, lower=0.7,
    shout=0.02, no_stop=0.8, exclaim=0.1,
)
ANGRY = Tone(
    weight=0.16,
    openings=(
        "seriously?", "this is ridiculous.", "third time I'm writing.", "unbelievable.", "wtf,",
        "are you kidding me?", "hello??", "I'm so fed up.", "what a joke.", "listen,",
    ),
    closings=(
        "sort it out.", "I'm done waiting.", "never again.", "wtf is going on", "fix this now!",
        "worst shop ever.", "I want an answer today.", "does anyone even read this?", "smh", "😡",
        "useless.",
    ),
    opening=0.6, closing=0.65, fragment=0.15, context=0.25, slang=0.25, typos=0.25, lower=0.3,
    shout=0.25, no_stop=0.2, exclaim=0.5,
)
TONES = (PLAIN, POLITE, CASUAL, ANGRY)
CALM_TONES = (PLAIN, POLITE, CASUAL)
CALM_QUEUES = ("product questions",)

SLANG: Mapping[str, str] = {
    "you": "u", "your": "ur", "please": "pls", "because": "cuz", "are": "r", "thanks": "thx",
    "though": "tho", "although": "tho", "password": "pw", "about": "abt", "don't": "dont",
    "doesn't": "doesnt", "can't": "cant", "won't": "wont", "I'm": "im", "I've": "ive",
    "it's": "its", "want to": "wanna", "account": "acct", "with": "w/", "something": "smth",
    "someone": "some1", "pictures": "pics", "really": "rly", "nobody": "no1", "phone": "fone",
    "yesterday": "yday", "for": "4", "what": "wat", "subscription": "sub", "tomorrow": "tmrw",
    "probably": "prob", "people": "ppl", "before": "b4", "never": "nvr", "message": "msg",
}

NEIGHBOURS: Mapping[str, str] = {
    "a": "sqz", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj",
    "i": "uo", "j": "hk", "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "wa",
    "r": "et", "s": "ad", "t": "ry", "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu",
    "z": "x",
}
# fmt: on
