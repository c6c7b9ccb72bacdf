"""What customers write about accounts and devices: access, technical, subscription, security.

Data only, written as in `intents_orders`.
"""

from __future__ import annotations

from ratchet.simulation.intents_orders import Intents

ACCOUNT_ACCESS: Intents = {
    "forgotten password": (
        "I (forgot|can't remember) my password and the reset (email|link) never (comes|arrives)",
        "how (do|can) I reset my password (without the old email|if I have no access to that "
        "phone)?",
        "the password reset link (says expired|has expired|is broken) (every time|when I click it)",
        "~(forgot password|password reset not working|no reset email)(, {email}|)",
    ),
    "locked": (
        "my account (got|has been) locked (after too many tries|and I don't know why|since {day})",
        "it says too many (attempts|tries) when I (log|sign) in (on {platform}|), (how long do I "
        "have to wait|when can I try again)?",
        "~(account locked|locked out)( again| since {day})",
    ),
    "code does not come": (
        "the (login|six digit|verification) code (never arrives|doesn't come) (by text|on my "
        "phone|by email)",
        "I'm not (getting|receiving) the code (to sign in|for the two-step login)",
        "~no (login|verification) code( by text| since {day})",
    ),
    "new phone": (
        "I (got|have) a new (phone|number) and no longer get the (login codes|codes to sign in)",
        "(my old phone is gone|I changed my number), how do I sign in without the code?",
        "~new (phone|number), can't (get the code|sign in)",
    ),
    "e-mail address": (
        "(how do I|can you) change the email (on|for) my account( to {email}|)?",
        "I no longer (have|use) the email I (registered|signed up) with and (can't get in|need to "
        "change it)",
        "~(change|new) email (for login|on account)( to {email}|)",
    ),
    "cannot sign in": (
        "(every time I log in|when I sign in) (on {platform}|) it (throws me out|sends me back to "
        "the login page)",
        "I can't (log in|sign in|get in) (on the website|in the app|on {platform}), it says (wrong "
        "password|user not found) but (the password is right|it worked {when})",
        "the login page just (spins|shows {code}|goes blank) and I can't get to my (orders|"
        "account)",
        "~(can't|cannot) (log in|sign in|get in)( on {platform}|)",
    ),
    "two accounts": (
        "I have two accounts (by mistake|with different emails), can you (merge them|put them "
        "together)?",
        "it says there is no account for (my email|{email}) but I (ordered|bought) from you {when}",
        "~(merge|combine) (my two|two) accounts",
    ),
    "closing": (
        "(please|can you) delete my account and everything in it",
        "how (do|can) I close my account (for good|permanently|)?",
        "~(close|delete) my account( for good|, {email})",
    ),
    "other sign-in": (
        "sign in with (Google|Apple|Facebook) (stopped working|doesn't work|makes a new empty "
        "account) (on {platform}|since {day}|)",
        "~(Google|Apple|Facebook) login (broken|doesn't work)",
    ),
    "confirmation": (
        "I (signed up|registered) {when} but the confirmation email never (came|arrived)",
        "the (activation|confirmation) link (is dead|doesn't work|says invalid), so I can't "
        "(finish signing up|use my account)",
        "~no (confirmation|activation) email( since {day}|)",
    ),
    "somebody else's account": (
        "I need to get into the account of my (late father|mother, who can't do it herself)",
        "can my (wife|husband|son|assistant) have a separate login for (our|my) account?",
        "~login for (a second person|my assistant)",
    ),
    "profile": (
        "I (got married|changed my name), how do I (change|update) my name (on|in) my (account|"
        "profile)?",
        "I can't (edit|change) my (profile|phone number|username), the button is (grey|gone)",
        "~change (username|name on profile|my phone number)",
    ),
}

TECHNICAL: Intents = {
    "does not start": (
        "my {product} (won't|doesn't) (turn on|start|boot) (any more|since {day}|even when plugged "
        "in)",
        "the {product} is (completely dead|dead) (out of the box|after {duration})",
        "~{product} (won't turn on|dead|doesn't start)",
    ),
    "battery": (
        "the battery of my {battery} (drains|is empty) (in an hour|overnight|after twenty minutes)",
        "my {battery} (stops charging at|won't charge past) (forty|eighty) percent",
        "~{battery} (not charging|battery drains fast)",
    ),
    "app crashes": (
        "(your|the) app (crashes|closes|freezes) (when I open it|as soon as I tap my {connected}|"
        "on {platform})",
        "since the (update|last update) the app (shows a blank screen|shuts down) on {platform}",
        "~app (crashing|frozen) on {platform}",
    ),
    "connection": (
        "my {connected} (won't connect to|keeps losing|can't find) (the wifi|my router|my network)",
        "the {connected} (doesn't pair|won't pair) with {system}",
        "~{connected} (won't pair|keeps disconnecting|no wifi)",
    ),
    "error code": (
        "my {product} (shows|displays|stops with) {code}, what does (it|that) mean?",
        "I get {code} (every time I start|when I update) the {product}",
        "~{code} on (my|the) {product}",
    ),
    "update fails": (
        "the (firmware|software) update on my {connected} (fails|hangs|stops) at (ten|ninety) "
        "percent",
        "after the (latest|last) update my {connected} (restarts all the time|lost its settings|"
        "has no sound)",
        "~update (stuck|failed) on {connected}",
    ),
    "screen": (
        "the screen of my {screen} (flickers|stays black|has green lines|doesn't react to touch)",
        "there are (dead pixels|strange stripes) on my {screen} (since {day}|after {duration})",
        "~{screen} screen (black|flickering|frozen)",
    ),
    "sound": (
        "(there is no sound from|only the left side works on|there's a crackling noise from) my "
        "{audio}",
        "people can't hear me when I call with (the|my) {microphone}",
        "~no sound (from|on) {audio}",
    ),
    "heat": (
        "my {battery} gets (very|really|scarily) hot (when charging|after ten minutes), is that "
        "normal?",
        "the fan of my {fan} (runs|is loud) all the time(, even when idle|)",
        "~{battery} (overheating|too hot to touch)",
    ),
    "setup": (
        "I'm stuck (setting up|installing) my {product}, (the app can't find it|step three never "
        "finishes|it wants a code I don't have)",
        "how do I (factory reset|set up|move my data to) my {computer}?",
        "~(how to reset|stuck on setup of) {product}",
    ),
    "slow": (
        "my {computer} (has become|is) (incredibly|very|so) slow (since {day}|after {duration}|)",
        "my {computer} (freezes|hangs) (several times a day|when I open more than one thing)",
        "~{computer} (super slow|keeps freezing)",
    ),
    "website": (
        "your (website|checkout page) (shows {code}|won't load) (on {platform}|in any browser)",
        "the (search|basket|add to basket button) on your site (does nothing|is broken) on "
        "{platform}",
        "~website (down|not loading|shows {code})",
    ),
    "accessory": (
        "the {plugin} (stopped working|is not recognised) with my {computer}",
        "my {computer} doesn't (recognise|see) the {plugin} (any more|since {day})",
        "~{plugin} not recognised by {computer}",
    ),
}

SUBSCRIPTION: Intents = {
    "cancel": (
        "I (want|would like) to (cancel|stop) (my|the) {plan}",
        "how (do|can) I (cancel|get out of) (my|the) {plan}(, I don't use it|, I never use it|)?",
        "where is the cancel button for (my|the) {plan}? I've (looked|clicked) everywhere",
        "~(cancel|stop) my {plan}( please|)",
    ),
    "pause": (
        "can I (pause|freeze) (my|the) {plan} (for {duration}|over the summer|while I'm abroad)?",
        "~pause my {plan}( for {duration}|)",
    ),
    "upgrade": (
        "I (want|would like) to (upgrade|move|switch) from basic to the {plan}",
        "what (happens|changes) if I upgrade to the {plan} (now|in the middle of the month)?",
        "~upgrade to {plan}(, how?|)",
    ),
    "downgrade": (
        "can I (go down|switch|downgrade) to (a cheaper plan|basic) (without losing my points|from "
        "next month|)?",
        "the {plan} is too much for me, (what's the smallest one|is there a smaller one)?",
        "~downgrade (to basic|my {plan})",
    ),
    "renewal": (
        "when does my {plan} (renew|run out|end)?",
        "(how do I|can I) (turn off|stop) (auto renewal|automatic renewal) (of|for) my {plan}?",
        "my {plan} renewed {when} (although|even though) I (cancelled it|turned renewal off)",
        "~(turn off auto renew|renewal date of my {plan})",
    ),
    "trial": (
        "does the free trial (turn into|become) the {plan} (by itself|automatically)?",
        "my free trial (ended early|was only {duration}), (I was promised a month|why?)",
        "~(end|stop|extend) my free trial",
    ),
    "members": (
        "how (do|can) I add (my wife|my husband|my kids|a flatmate) to (my|the) {plan}?",
        "how many (people|devices) can (share|use) the {plan}?",
        "~add (a member|my kids) to {plan}",
    ),
    "what is in it": (
        "what (exactly|) (do I get|is included) (with|in) the {plan}?",
        "is the {plan} worth it if I (only order|order) (twice a year|a few times a month)?",
        "~(benefits|perks) of the {plan}?",
    ),
    "yearly": (
        "can I (change|switch) my {plan} from monthly to (yearly|annual)?",
        "is the {plan} cheaper if I pay for (a|the whole) year?",
        "~{plan} (monthly to yearly|yearly price)?",
    ),
    "restart": (
        "I cancelled my {plan} {when} (by mistake|) and (want|would like) it back",
        "can I (rejoin|restart) the {plan} (at|for) my old price?",
        "~(restart|reactivate) my {plan}",
    ),
    "benefits missing": (
        "I'm on the {plan} but (still had to pay for shipping|don't see the member prices|get no "
        "early access)",
        "my {plan} (shows as inactive|says expired) but (it was renewed|I joined {when})",
        "~{plan} (benefits missing|shows inactive)",
    ),
    "price rise": (
        "(why is|I read that) the {plan} (going up|getting more expensive)(, can I keep my old "
        "price|)?",
        "I (won't|don't want to) pay {fee} a month for the {plan} after the increase, (end it|"
        "what are my options?)",
        "~{plan} price (increase|going up)",
    ),
    "gift": (
        "can I (give|buy) (somebody|my {person}) the {plan} as a (gift|present)?",
        "I got (a year|six months) of the {plan} as a gift, how do I (start|activate) it?",
        "~gift {plan} (for my {person}|activation)",
    ),
}

SECURITY: Intents = {
    "unknown sign-in": (
        "I got an email about a (login|sign-in) from {town} (, that wasn't me|and I have never "
        "been there)",
        "somebody (logged in to|is using|got into) my account (, I see orders that aren't mine|"
        "from {town}|)",
        "~(unknown|strange) login from {town}",
    ),
    "unknown order": (
        "there is an order (for the {product}|of {amount}) in my account that I (never placed|did "
        "not make)",
        "someone ordered the {product} (with my card|in my name) (and had it sent to {town}|)",
        "~order {order} (placed by a stranger|wasn't placed by me)",
    ),
    "phishing mail": (
        "I (got|received) (a mail|an email|a text) (that says it's|pretending to be) from you "
        "asking (for my card number|for my password|to click a link), is (it|that) (real|a scam)?",
        "is (this|the) message about (order {order}|a missed parcel|an unpaid bill) really from "
        "you? (It looks fake|The link looks odd|I didn't order anything)",
        "~(fake|scam|phishing) (email|text) (in your name|about my order)",
    ),
    "phone scam": (
        "(a man|someone) called (saying he was|claiming to be) from your (support|shop) and "
        "(wanted|asked for) (my card details|remote access to my {thing}|the code from my phone)",
        "~(scam call|fake support call)(, {when}|)",
    ),
    "gave details away": (
        "I (clicked|fell for) a fake link and (entered|typed) my (password|card number), what "
        "(now|should I do)?",
        "I gave (the login code|my password|my card number) to a caller {when}, (please block|can "
        "you freeze) my account",
        "~entered (my password|card details) on a fake site",
    ),
    "details changed": (
        "my email was changed (without me|by somebody else) (and I can't get in|)",
        "(someone|a stranger) (changed|replaced) the (address|phone number|email) on my account "
        "{when}",
        "~(account hacked|hacked), (email changed|everything changed)",
    ),
    "stolen device": (
        "my {portable} was stolen {when}, can you (block|lock|track) it?",
        "I lost my {computer} with my account still open on it, how do I (log it out|wipe it)?",
        "~stolen {portable}, (block it|lock it)( please|)",
    ),
    "stolen card": (
        "someone is (using|buying things with) my stolen card (in your shop|on your site)",
        "my card was (copied|stolen) and {amount} went to your shop, I have no account with you",
        "~stolen card used (in your shop|for {amount})",
    ),
    "data breach": (
        "I read that (customer data|passwords) from your shop (leaked|got stolen), am I affected?",
        "my email (shows up|is) in a leak (with your name on it|from your shop), what was taken?",
        "~(data leak|data breach), am I affected?",
    ),
    "privacy": (
        "(please send me|I want to see) all the data you (have|store) about me",
        "who can see the (recordings|pictures) from my (doorbell|camera|tablet), (are they "
        "encrypted|do you keep them)?",
        "(why do you share|stop sharing) my (phone number|address) with (advertisers|other "
        "companies)",
        "~what data do you (keep|store) about me?",
    ),
    "sign out everywhere": (
        "how do I (log out|sign out) (all my devices|every device) at once? I "
        "think somebody (has my password|is watching my account)",
        "I want to know which devices (are logged in to|have used) my account, I (don't trust|"
        "don't recognise) one",
        "~unknown device (on|in) my account",
    ),
    "report": (
        "I found a (hole|serious bug) in your (website|app) that shows other customers' (orders|"
        "addresses), who do I tell?",
        "there is a fake shop (using|with) your (name and logo|logo), (it sells the {product} for "
        "{amount}|I nearly paid there)",
        "~(fake website|copycat shop) using your (logo|name)",
    ),
}
