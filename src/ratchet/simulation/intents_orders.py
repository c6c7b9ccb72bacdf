"""What customers write about orders: billing, refunds, delivery and product questions.

Data only. Each intent has its wordings: `(a|b|)` is a choice, `{slot}` is filled from
`phrases.SLOTS`, and a wording that starts with `~` is a fragment, used on its own.
"""

from __future__ import annotations

from collections.abc import Mapping

Intents = Mapping[str, tuple[str, ...]]

BILLING: Intents = {
    "double charge": (
        "I (was|got) charged twice for (order {order}|the same order|my {product})",
        "there are two payments of {amount} on my (card|statement|bank account) "
        "(for one order|but I only ordered once)",
        "(why|how come) (did you take|you took) {amount} (twice|two times)?",
        "~(charged twice|double charge|two payments), (order {order}|{product})",
    ),
    "wrong amount": (
        "the total on (my card|my statement) is {amount} but checkout said something else",
        "I was (charged|billed) {fee} more than the (price|total) (shown|I saw) at checkout",
        "your site said the {product} was {amount}, so why (did I pay|was I billed) more?",
        "~(wrong amount|wrong total|overcharged) on order {order}",
    ),
    "invoice": (
        "(can|could) you (send|email) me (an invoice|a proper invoice|a receipt) for order {order}?"
        "(| My accountant needs it| I need it for (tax|work))",
        "I (need|can't find) (the|an) invoice for the {product} I bought {when}",
        "where (do|can) I download (the receipt|my invoice) for (order {order}|the {product})?",
        "~(invoice|receipt) for (order {order}|my {product})( please|)",
    ),
    "invoice details": (
        "the invoice for order {order} (has|shows) the wrong (company name|VAT number|address), "
        "(can you fix it?|please correct it)",
        "I bought the {product} for my business, (can|could) you (add|put) our VAT number "
        "on the (invoice|receipt)?",
        "~(VAT number|company name) (missing|wrong) on (invoice|the invoice)",
    ),
    "payment declined": (
        "my card (keeps getting|always gets) declined (at checkout|when I pay) (even though|but) "
        "there is (enough|plenty of) money on it",
        "paying with {payment} (fails|does not go through) (every time|at the last step)",
        "I tried to pay for the {product} (three times|twice) and (the payment failed|it says "
        "payment refused) (each time|)",
        "~(payment|{payment} payment) (declined|refused|keeps failing)",
    ),
    "unclear charge": (
        "what is (this|the) {amount} from you on my (statement|card)? I did order something but "
        "(not for that amount|the amount doesn't match)",
        "I see {amount} on my (card|bank statement) from your shop and (can't work out|don't know) "
        "(which order it belongs to|what it is for)",
        "~(what is|please explain) this {amount} (charge|payment)",
    ),
    "voucher": (
        "(the|my) (discount|voucher|promo) code {voucher} (was not applied|did nothing|says "
        "invalid) (at checkout|when I paid)",
        "I used my {amount} (voucher|gift card) (for the {product}|) but (paid|was charged) "
        "(full price|the full amount)",
        "~(promo code|voucher|code {voucher}) (not working|wasn't applied|rejected)",
    ),
    "card on file": (
        "how (do|can) I (change|update) the card (you charge|you have on file|I pay with)?",
        "my card (expires next month|has expired|was replaced), where do I (enter|put in) the "
        "new one?",
        "~(new card|card expired), how (to|do I) update (it|payment details)?",
    ),
    "instalments": (
        "can I (pay for|buy) the {product} in (instalments|monthly payments|three parts)?",
        "the (second|third|last) instalment for my {product} (was taken early|was taken twice|did "
        "not go through)",
        "~instalment for (order {order}|the {product}) taken (early|twice)",
    ),
    "pending hold": (
        "my bank still shows {amount} as pending from you (although|even though) (the order "
        "failed|checkout crashed)",
        "my order for the {product} didn't go through but the money (left my account|is gone|"
        "was reserved)",
        "~order failed but money (gone|taken|still reserved)",
    ),
    "plan fee": (
        "my (latest|last) bill for the {plan} was {amount}, (that's more than usual|what is the "
        "extra for?)",
        "(I was billed|you billed me) for two months of the {plan} (at once|on the same day)",
        "why is there VAT on top of the price (of|for) the {plan}?",
        "~(billed twice|wrong bill) for the {plan}",
    ),
    "currency": (
        "I (was charged|paid) in dollars (instead of|but the price was in) (pounds|euros)",
        "(why did my bank add|why is there) a (foreign transaction|conversion) fee of {fee} "
        "(on|for) my order?",
        "~charged in (dollars|the wrong currency) (for order {order}|)",
    ),
}

REFUNDS: Intents = {
    "waiting for money": (
        "I (sent back|returned) the {product} {duration} ago and (still have not got|there is "
        "still no sign of) my money",
        "when will I (get|see) my (refund|money back) for (order {order}|the {product})?",
        "you (said|promised) (the refund|I'd have my money back) (would take|in) five days, it has "
        "been {duration}",
        "~(where is my refund|still no refund|no money back yet), (order {order}|{product})",
    ),
    "wants to return": (
        "I (want|would like) to (return|send back) the {product}, (it is not what I expected|I "
        "don't like it|it's too big|it was a gift)",
        "how do I return (my|the) {product}? I (bought|got) it {when}",
        "(I changed my mind about the {product}|the {product} is not for me), how can I send it "
        "back?",
        "~(return|sending back) the {product}, how?",
    ),
    "too little": (
        "I only got {amount} back (but|although) I paid (a lot more|nearly twice that)",
        "you kept {fee} of my refund (for|because of) (shipping|a missing box), (that's not "
        "right|why?)",
        "~(refund is {fee} short|only part of my money came back)",
    ),
    "return label": (
        "(can you send me|I need|I never got) a return label for (order {order}|the {product})",
        "the return label for (order {order}|my {product}) (won't print|has expired), (I need a "
        "new one|can I get another?)",
        "~(no|need a new|missing) return label (for order {order}|)",
    ),
    "cancel and refund": (
        "I cancelled order {order} {when} and (want|expect|am waiting for) my money back",
        "cancel my order for the {product} and (refund me|give me my money back)",
        "~cancel order {order} and (refund|refund me)",
    ),
    "return window": (
        "is it too late to (return|send back) (the|my) {product}? I've had it for {duration}",
        "how many days do I have to (send the {product} back|return something I opened)?",
        "can I (still return|send back) the {product} without the (original box|receipt)?",
        "~return window for (the {product}|opened items)?",
    ),
    "refund destination": (
        "the card I paid with (is closed|has been cancelled|no longer works), where will (my "
        "refund|the money from my return) go?",
        "can you (send|pay) the refund to (a different|another) (card|account)?",
        "you gave me store credit for (the {product}|order {order}), I want (real money|it on my "
        "card)",
        "~refund to (another|my new) card",
    ),
    "faulty, money back": (
        "the {product} (broke|died) after {duration}, I don't want a repair, I want my money back",
        "this {product} is (rubbish|faulty|junk) and I (want|demand) (a full refund|every penny "
        "back)",
        "~faulty {product}, want (money|my money) back",
    ),
    "exchange": (
        "can I (swap|exchange) the {product} for (a different colour|the bigger one|another "
        "model)?",
        "I ordered the wrong (size|colour|model) and (want|need) to exchange the {product}",
        "~exchange {product} for (black|white|another colour)",
    ),
    "return refused": (
        "you (refused|rejected) my return (because|saying) the (box was opened|seal was broken), "
        "(I had to open it to try it|that's not fair)",
        "my return of the {product} was (refused|rejected) and nobody (told|tells) me why",
        "~return (rejected|refused), (why?|order {order})",
    ),
    "price drop": (
        "the {product} went down by {fee} {duration} after I bought it, (can I get the "
        "difference back|will you pay back the difference)?",
        "~price dropped {fee}, (can I get|want) the difference back",
    ),
    "return not processed": (
        "tracking shows you (received|got) my return {when} but (it still says processing|nothing "
        "has happened)",
        "your warehouse (has had|has been sitting on) my returned {product} for {duration}",
        "~return (received|arrived) but not processed",
    ),
}

DELIVERY: Intents = {
    "late": (
        "where is my (parcel|order|{product})? It should have (arrived|been here) {when}",
        "my {product} (still hasn't|has not) (arrived|come|shown up), I ordered it {when}",
        "order {order} is (late|days late|over a week late), (what's happening|any news)?",
        "~(where's|where is) (my parcel|order {order}|my {product})?",
    ),
    "tracking": (
        "tracking for order {order} (has not moved|has been stuck in {town}) for {duration}",
        "the tracking (number|link) (you sent|in the email) (doesn't work|says not found)",
        "~tracking (stuck in {town}|not updating|number invalid)",
    ),
    "marked delivered": (
        "it says delivered (but|and) (I have nothing|there is nothing here|nobody rang)",
        "{carrier} (claims|says) my {product} was (delivered|handed over) {when}, (I never got it|"
        "I was home all day)",
        "~marked delivered, (never got it|not here|order {order})",
    ),
    "address": (
        "(can|could) you (change|update) the (delivery|shipping) address (for|on) order {order}?",
        "I put (my old|the wrong) address on order {order}, can it still be (changed|sent to the "
        "right place)?",
        "~wrong address on (order {order}|my parcel)",
    ),
    "damaged parcel": (
        "the (box|parcel) (arrived|came|turned up) (crushed|soaking wet|torn open) and (the "
        "{product} is scratched|the screen is cracked|I don't dare open it)",
        "{carrier} (threw|dropped) my parcel (over the fence|on the doorstep), the box is "
        "(smashed|dented)",
        "~parcel (crushed|damaged|torn open), (order {order}|{product} inside)",
    ),
    "wrong item": (
        "I ordered the {product} and (got|received|you sent) (something else|the wrong colour|a "
        "phone case)",
        "there was the wrong (item|thing) in (the box|my parcel), (order {order}|I ordered the "
        "{product})",
        "~wrong (item|thing) in the box, (order {order}|not my {product})",
    ),
    "missing item": (
        "the {part} is missing from my (parcel|order), only the {product} was in the box",
        "only (half|part) of order {order} (came|arrived|has come)",
        "~{part} missing from (the box|my parcel)",
    ),
    "new time": (
        "I (won't be|am not) home on {day}, can {carrier} come (another day|later in the week)?",
        "can I (pick|choose) a time slot for order {order}?",
        "~(move|change) delivery to {day}",
    ),
    "where and how much": (
        "(do|can) you (ship|deliver) to {country}(, and what does it cost|)?",
        "how much is (express|next day) shipping (to {town}|to {country}|for the {product})?",
        "~(shipping|postage) (to {country}|for the {product})?",
    ),
    "pickup point": (
        "the (pickup point|parcel shop|locker) in {town} (was closed|says it has no parcel for me|"
        "could not find my parcel)",
        "can (order {order}|my {product}) be sent to a (locker|pickup point) (near work|in {town}) "
        "instead?",
        "~locker code (doesn't work|never came) for order {order}",
    ),
    "not sent yet": (
        "when will (order {order}|my {product}) (ship|be sent out|leave the warehouse)?",
        "order {order} has said preparing for {duration}, (has it left|is it on its way)?",
        "~(not shipped yet|still not sent), (order {order}|{product})",
    ),
    "driver": (
        "the driver (left|dumped) my {product} (in the rain|with a neighbour I don't know|next to "
        "the bins)",
        "{carrier} (didn't even ring|left a card without ringing) and took my {product} "
        "back, I was (home|in)",
        "~driver (never rang|left it outside)( in {town}|)",
    ),
    "customs": (
        "(my parcel|order {order}|my {product}) is (stuck|held) (in|at) customs, (what do they "
        "need|do I have to pay something)?",
        "~(order {order}|parcel) stuck in customs",
    ),
}

PRODUCT_QUESTIONS: Intents = {
    "compatibility": (
        "does the {connected} work with {system}?",
        "(is the {plugin} compatible|would the {plugin} work) with the {computer}?",
        "will the {connected} work with my (old|current) {computer}?",
        "~{connected} (with|and) {system}, possible?",
    ),
    "specification": (
        "how (much memory|many ports|much storage) does the {computer} have?",
        "(how heavy|how big|how loud) is the {product}?",
        "what is the (screen size|resolution|exact weight|power draw) of the {screen}?",
        "~(weight|dimensions|colours) of the {product}?",
    ),
    "stock": (
        "when (will the {product} be|is the {product}) back in stock?",
        "do you (still have|have) the {product} in (black|white|blue|silver)?",
        "is the {product} (in your {town} shop too|sold out for good)?",
        "~{product} (back in stock when|available in {town})?",
    ),
    "comparison": (
        "what's the difference between the {pair}?",
        "is the {product} (really|much) better than the (older|cheaper) one?",
        "~{pair}, which is (lighter|newer|louder)?",
    ),
    "warranty": (
        "how long is the (warranty|guarantee) on the {product}?",
        "does the (warranty|guarantee) (on the {product}|) cover (drops|water damage|the battery)?",
        "can I (buy|add) (an extended warranty|extra cover) (for|with) the {product}?",
        "~(warranty|guarantee) on {product}?",
    ),
    "in the box": (
        "does the {product} (come with|include) (the|its own) {part}?",
        "(do I need|do I have) to buy the {part} separately for the {product}?",
        "~{part} included with {product}?",
    ),
    "durability": (
        "is the {portable} (waterproof|dustproof|okay to use in the rain|safe to use outdoors)?",
        "can I use the {portable} (in the shower|at the beach|on a plane)?",
        "~{portable} (waterproof|safe in rain)?",
    ),
    "battery life": (
        "how (long|many hours) does the {battery} (last|run) (on one charge|without charging)?",
        "how long does the {battery} take to charge(| from empty)?",
        "~battery life of {battery}?",
    ),
    "recommendation": (
        "which {thing} would you (recommend|suggest) for {use}?",
        "I need a good {thing} for {use} (under|for less than) {amount}, what do you "
        "(suggest|have)?",
        "is the {computer} (good|good enough|too much) for {use}?",
        "~(best|good) {thing} for {use} under {amount}?",
    ),
    "release": (
        "when does the (next|new) {product} come out?",
        "is there a newer (model|version) of the {product} (coming|planned) (this year|soon)?",
        "~new {product} (release date|coming out when)?",
    ),
    "refurbished and bulk": (
        "do you sell (refurbished|second hand|open box) (ones of|versions of) the {product}?",
        "is there a discount if (we|I) (order|buy) (ten|twenty|thirty) of the {product} for "
        "(a school|our office)?",
        "~{product} refurbished, (any left|price)?",
    ),
    "plug and language": (
        "does the {product} come with a (UK|US|European) plug?",
        "can the menu of the {screen} be set to (French|Polish|Spanish|German)?",
        "~{product} with (UK|US|EU) plug?",
    ),
}
