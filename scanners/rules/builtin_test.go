package rules

import (
	"slices"
	"strings"
	"testing"

	"sluice/internal/envelope"
	"sluice/internal/verdict"
	"sluice/scanners"
)

// example makes a whole message of a short form: lines before the first empty
// one are header fields that replace those of an ordinary mail ("-Date" takes
// one away), the rest is the body. A body that begins with '<' is HTML.
func example(short string) []byte {
	head, body, _ := strings.Cut(short, "\n\n")
	fields := []string{"Received: from mail.example.org (mail.example.org [198.51.100.17]) by mx.example.net; Mon, 23 Nov 2026 09:12:46 +0000",
		"Date: Mon, 23 Nov 2026 09:12:44 +0000", "From: Lee Park <lee@example.org>", "To: Kim <kim@example.net>", "Subject: Meeting",
		"Message-ID: <m10.20261123@mail.example.org>", "MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8"}
	if strings.HasPrefix(body, "<") {
		fields[7] = "Content-Type: text/html; charset=utf-8"
	}
	for line := range strings.SplitSeq(head, "\n") {
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "-"), ":")
		fields = slices.DeleteFunc(fields, func(f string) bool { return strings.HasPrefix(f, name+":") && name != "" })
		if line != "" && line[0] != '-' {
			fields = append(fields, line)
		}
	}
	return []byte(strings.ReplaceAll(strings.Join(fields, "\n")+"\n\n"+body+"\n", "\n", "\r\n"))
}

// attached is a multipart body with one attachment.
func attached(fields string) string {
	return "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nSee there.\n--b\n" + fields + "\n\nx\n--b--"
}

// examples has mail that each rule hits, and mail much like it that it doesn't.
var examples = []struct{ rule, hit, miss string }{
	{"SL_ADULT", "\n\nhot girls are waiting", "\n\nit was hot, and the girls were waiting"},
	{"SL_ADVANCE_FEE", "\n\nDear friend, I am the next of kin of a barrister. Assist me to transfer the sum of US$ 12,500,000.", "\n\nDear friend, the next of kin was told."},
	{"SL_ARCHIVE_BAIT", attached("Content-Type: application/x-rar; name=\"Invoice 12.rar\""), attached("Content-Type: application/zip; name=\"holiday.zip\"")},
	{"SL_BASE64_ASCII", "Content-Transfer-Encoding: base64\n\nSGVsbG8gS2ltLCBwbGFpbiBsZXR0ZXJzIGhlcmUuCg==", "Content-Transfer-Encoding: base64\n\nR3LDvMOfZQo="},
	{"SL_BIG_FONT", "\n\n<font size=\"+4\">Hello</font>", "\n\n<font size=\"2\">Hello</font>"},
	{"SL_BRAND_ELSEWHERE", "From: PayPal Support <x@example.org>", "From: PayPal Support <service@paypal.com>"},
	{"SL_BRAND_IN_DOMAIN", "From: Alert <a@chase-secure01.example>", "From: Alert <a@chase.example>"},
	{"SL_BULK_MAILER", "X-Mailer: Advanced Mass Sender", "X-Mailer: Thunderbird 140"},
	{"SL_CALL_ABOUT_BILL", "\n\nYour Norton subscription was renewed for $ 349.99. To cancel this order call our helpline +1 (808) 555-0142.", "\n\nCall our office about the invoice of $ 349.99."},
	{"SL_COIN_FRAUD", "\n\nClaim your bitcoin now: verify your wallet", "\n\nBitcoin fell again today."},
	{"SL_DANGEROUS_NAME", attached("Content-Disposition: attachment; filename=\"photo.scr\""), attached("Content-Disposition: attachment; filename=\"photo.jpg\"")},
	{"SL_DATE_SHIFTED", "Date: Mon, 2 Nov 2026 09:12:44 +0000", "Date: Sun, 22 Nov 2026 09:12:44 +0000"},
	{"SL_EASY_MONEY", "\n\nBe your own boss and earn extra income", "\n\nMy boss pays the income tax"},
	{"SL_EXCUSES", "\n\nThis message is not spam, you receive it once", "List-Id: <a.example.org>\n\nThis message is not spam, you receive it once"},
	{"SL_EXTORTION", "\n\nI recorded you: a video of you goes to all. Send bitcoin.", "\n\nHere is the video of you at the party."},
	{"SL_FIELD_PADDING", "Subject:          Offer", "Subject:  Offer"},
	{"SL_FORGED_OUTLOOK", "X-Mailer: Microsoft Outlook Express 6.00.2600.0000", "X-Mailer: Microsoft Outlook Express 6.00.2600.0000\nMessage-ID: <000801c2a1b2$3c4d5e60$0100a8c0@kim>"},
	{"SL_FROM_CHEAP_TLD", "From: Lee <lee@offers.example.shop>", "From: Lee <lee@shop.example.org>"},
	{"SL_FROM_DIGITS", "From: Lee <lee8841234@example.org>", "From: Lee <lee42@example.org>"},
	{"SL_FROM_ONMICROSOFT", "From: Lee <lee@tenant12.onmicrosoft.com>", "From: Lee <lee@microsoft.com>"},
	{"SL_FROM_ORNAMENT", "From: ~!!~ Lee Park <lee@example.org>", "From: Lee ~ Park <lee@example.org>"},
	{"SL_FROM_TIGHT", "From: \"Lee Park\"<lee@example.org>", "From: \"Lee Park\" <lee@example.org>"},
	{"SL_FROM_WORDY_LOCAL", "From: Lee <SilverMoonRiverDance@example.org>", "From: Lee <LeePark@example.org>"},
	{"SL_GIBBERISH", "\n\nxkqjdhtpwmzrbvcngfsl is here", "\n\ninternationalization is here"},
	{"SL_GIFT_NOW", "\n\nClaim your free gift while supplies last", "\n\nThe gift was free"},
	{"SL_HIDDEN_ELSEWHERE", "To: undisclosed-recipients:;\nReply-To: x@example.com", "Reply-To: x@example.com"},
	{"SL_HTML_ATTACHED", attached("Content-Disposition: attachment; filename=\"voice.html\""), attached("Content-Disposition: attachment; filename=\"voice.pdf\"")},
	{"SL_HTML_FORM", "\n\n<form action=\"https://example.com/\"><input name=a></form>", "\n\n<p>fill in the form</p>"},
	{"SL_HTML_OLD_COLOR", "\n\n<font color=\"#ff0000\">Hello</font>", "\n\n<font color=\"#333333\">Hello</font>"},
	{"SL_HTML_ONLY", "\n\n<p>Hello</p>", "\n\nHello"},
	{"SL_HTML_SCRIPT", "\n\n<p>Hello</p><script>x()</script>", "\n\n<p>Hello script</p>"},
	{"SL_LINKS_ELSEWHERE", "\n\nhttps://example.com/a", "\n\nhttps://www.example.org/a"},
	{"SL_LINKS_UNSAFE", "\n\n<a href=\"http://example.com/a\">Hello</a>", "\n\n<a href=\"https://example.com/a\">Hello</a>"},
	{"SL_LINK_CHEAP_TLD", "\n\nhttps://a.example.cfd/x", "\n\nhttps://cfd.example.org/x"},
	{"SL_LINK_ENCODED_HOST", "\n\n<a href=\"http://ex%61mple.com/a\">Hello</a>", "\n\n<a href=\"http://example.com/%61\">Hello</a>"},
	{"SL_LINK_HOSTED", "\n\nhttps://storage.googleapis.com/bucket/page.html", "\n\nhttps://storage.googleapis.com/bucket/logo.png"},
	{"SL_LINK_IP", "\n\nhttp://192.0.2.7/login", "\n\nhttp://example.com/192.0.2.7"},
	{"SL_LINK_IPFS", "\n\nhttps://gateway.example.com/ipfs/bafy1", "\n\nhttps://example.com/about-ipfs.html"},
	{"SL_LINK_PORT", "\n\nhttp://example.com:8443/a", "\n\nhttp://example.com:80/a"},
	{"SL_LINK_PUNYCODE", "\n\nhttps://www.xn--exmple-cua.com/a", "\n\nhttps://www.example.com/xn--a"},
	{"SL_LINK_REDIRECT", "\n\nhttps://www.google.com/url?q=https://example.com", "\n\nhttps://www.google.com/search?q=url"},
	{"SL_LINK_SHORT", "\n\nhttps://bit.ly/3abcd", "\n\nhttps://bitly.example.com/3abcd"},
	{"SL_LINK_USERINFO", "\n\n<a href=\"https://www.paypal.com@example.com/\">Hello</a>", "\n\n<a href=\"https://example.com/@kim\">Hello</a>"},
	{"SL_LOOKALIKE_LETTERS", "Subject: Your pIan is cancelled", "Subject: Your iPhone is here"},
	{"SL_LOTTERY", "\n\nYou have won the sum of $ 1,500,000 as a lucky winner", "\n\nThe lottery was drawn"},
	{"SL_MANY_STRANGERS", "To: " + strangers(10), "To: " + strangers(5)},
	{"SL_MEDICINE", "\n\nBuy viagra", "\n\nBuy bread"},
	{"SL_MIRACLE", "\n\nThis weird trick melts belly fat overnight", "\n\nThe trick with fat is heat"},
	{"SL_MIXED_ALPHABETS", "Subject: =?utf-8?q?P=D0=B0yment?=", "Subject: =?utf-8?q?=D0=9F=D1=80=D0=B8=D0=B2=D0=B5=D1=82?= Lee"},
	{"SL_NAME_OTHER_ADDRESS", "From: \"boss@example.net\" <x@example.org>", "From: \"boss@example.net\" <x@example.org>\nReply-To: boss@example.net"},
	{"SL_NO_DATE", "-Date", ""},
	{"SL_NO_MESSAGE_ID", "-Message-ID", ""},
	{"SL_NO_RECIPIENT", "-To", "-To\nCc: kim@example.net"},
	{"SL_ODD_DATE", "Date: Mon, 23 Nov 2026 09:12:44 +1900", "Date: Mon, 23 Nov 2026 09:12:44 +1300"},
	{"SL_ODD_MESSAGE_ID", "Message-ID: <abc@localhost>", "Message-ID: <abc@localhost.example.org>"},
	{"SL_OLD_SIGNATURE", "DKIM-Signature: v=1; a=rsa-sha1; d=example.org", "DKIM-Signature: v=1; a=rsa-sha256; d=example.org"},
	{"SL_PARCEL_FRAUD", "\n\nYour parcel could not be delivered. Pay the customs fee: click here", "\n\nYour parcel could not be delivered. We try again tomorrow."},
	{"SL_PHISHING", "\n\nYour account has been suspended. Verify your account within 24 hours: click here", "\n\nYour account has been updated."},
	{"SL_PICTURE_MAIL", "\n\n<a href=\"https://example.org/a\"><img src=\"https://example.org/a.png\"></a>", "\n\n<a href=\"https://example.org/a\"><img src=\"https://example.org/a.png\"></a>" + strings.Repeat("A good deal of text stands here as well. ", 8)},
	{"SL_REMOVE_UNLISTED", "\n\nTo unsubscribe write to us", "List-Unsubscribe: <mailto:x@example.org>\n\nTo unsubscribe write to us"},
	{"SL_REPLY", "In-Reply-To: <a1@example.net>\n\nYes.\n\nKim wrote:\n> ok?", "\n\nKim wrote a book"},
	{"SL_REPLY_TO_FREEMAIL", "Reply-To: lee.park.77@gmail.com", "Reply-To: lee@mail.example.org"},
	{"SL_REPORT", "Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\nContent-Type: text/plain\n\nGone.\n--b--", ""},
	{"SL_SELLS_REACH", "\n\nWe found errors on your website and offer SEO services", "\n\nOur website is up again"},
	{"SL_STYLED_LETTERS", "Subject: =?utf-8?b?8J2Xm/Cdl7zwnZe68J2Xsg==?=", "Subject: =?utf-8?q?Home_=F0=9F=8F=A0?="},
	{"SL_SUBJECT_ADV", "Subject: ADV: Warranties", "Subject: Advice"},
	{"SL_SUBJECT_BANG", "Subject: Now!!!", "Subject: Now!"},
	{"SL_SUBJECT_CAPITALS", "Subject: GET IT WHILE YOU CAN", "Subject: GET IT While you can"},
	{"SL_SUBJECT_OFFER", "Subject: Claim your prize", "Subject: The meeting"},
	{"SL_SUBJECT_TAIL", "Subject: Your kit is ready #NyOOsA", "Subject: Ticket #8412"},
	{"SL_TEMPLATE_LEFT", "\n\nDear {{first_name}},", "\n\nDear {first name},"},
	{"SL_TYPE_UNFINISHED", "Content-Type: text/plain;", "Content-Type: text/plain"},
	{"SL_WARES", "\n\nReplica watches", "\n\nThe watches are on the shelf"},
	{"SL_ZERO_WIDTH", "Subject: =?utf-8?q?C=E2=80=8Bh=E2=80=8Beck?=", "Subject: =?utf-8?q?Check=E2=80=8B?="},
}

func strangers(n int) string {
	var all []string
	for i := range n {
		all = append(all, "kim@d"+string(rune('a'+i))+".example")
	}
	return strings.Join(all, ", ")
}

func TestEachBuiltinRuleHitsAndMisses(t *testing.T) {
	s := builtin(t)
	seen := map[string]bool{"GTUBE": true} // has tests of its own
	has := func(short, rule string) (bool, []string) {
		total := judge(t, s, example(short), scanners.Input{})
		_, symbols := sum(total.Findings)
		return slices.ContainsFunc(total.Findings, func(f verdict.Finding) bool { return f.Symbol == rule }), symbols
	}
	for _, e := range examples {
		t.Run(e.rule, func(t *testing.T) {
			if ok, all := has(e.hit, e.rule); !ok {
				t.Errorf("doesn't hit %q: %v", e.hit, all)
			}
			if ok, all := has(e.miss, e.rule); ok {
				t.Errorf("hits %q: %v", e.miss, all)
			}
		})
		seen[e.rule] = true
	}
	for _, r := range s.Ruleset().Rules() {
		if !r.Silent && !seen[r.Name] {
			t.Errorf("%s has no examples", r.Name)
		}
		if !r.Silent && (r.Description == r.Name || r.Description == "") {
			t.Errorf("%s has no description", r.Name)
		}
	}
}

// TestNoBuiltinRuleMarksAlone: one sign is never enough, save the test string.
func TestNoBuiltinRuleMarksAlone(t *testing.T) {
	for _, r := range builtin(t).Ruleset().Rules() {
		if !r.Silent && r.Name != "GTUBE" && (r.Score >= 5*verdict.Point || r.Score < -2*verdict.Point) {
			t.Errorf("%s has the score %s", r.Name, r.Score)
		}
	}
}

func TestOrdinaryMailIsClean(t *testing.T) {
	if total, symbols := sum(judge(t, builtin(t), example(""), scanners.Input{}).Findings); total != 0 {
		t.Errorf("%s %v", total, symbols)
	}
}

// TestOwnUsersMail: what the MTA adds to mail of our own users isn't missed.
func TestOwnUsersMail(t *testing.T) {
	s, raw := builtin(t), example("-Date\n-Message-ID")
	tests := []struct {
		name string
		in   scanners.Input
		want string
	}{
		{"inbound", scanners.Input{}, "SL_NO_DATE SL_NO_MESSAGE_ID"},
		{"originating", scanners.Input{Direction: envelope.Outbound}, ""},
		{"of this machine", scanners.Input{Envelope: &envelope.Envelope{Local: true}}, ""},
	}
	for _, tt := range tests {
		var got []string
		for _, f := range judge(t, s, raw, tt.in).Findings {
			got = append(got, f.Symbol)
		}
		if slices.Sort(got); strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, got, tt.want)
		}
	}
}
