package rules

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/internal/verdict"
	"sluice/scanners"
)

func TestRulesSeeWhatSpamAssassinShowsThem(t *testing.T) {
	msg := `From: "Park, Lee" <lee@example.org>, kim@example.net (Kim)
To: a@example.com,
	b@example.com
Cc: c@example.com
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= and
	 more
Received: first
Received: second
X-Empty:
Message-ID: <1@example.org>

First line of text
Second line`
	tests := []struct{ name, cf, want string }{
		{"header", `header X Subject =~ /^Gr\xC3\xBC\xC3\x9Fe and more$/`, "X=1"},
		{"header name in any case", `header X SUBJECT =~ /more/`, "X=1"},
		{"raw header", `header X Subject:raw =~ /^=\?utf-8\?q\?Gr=C3=BC/`, "X=1"},
		{"all occurrences", "header X Received =~ /^first\\nsecond$/", "X=1"},
		{"first occurrence", "header X Received:first =~ /second/", ""},
		{"last occurrence", "header X Received:last =~ /^second$/", "X=1"},
		{"addresses", "header X From:addr =~ /^lee\\@example.org\\nkim\\@example.net$/", "X=1"},
		{"names", "header X From:name =~ /^Park, Lee\\nKim$/", "X=1"},
		{"unfolded", `header X To =~ /com, b/`, "X=1"},
		{"ToCc", `header X ToCc:addr =~ /^a\@.*\nb\@.*\nc\@/`, "X=1"},
		{"MESSAGEID", `header X MESSAGEID =~ /^<1\@/`, "X=1"},
		{"EnvelopeFrom", `header X EnvelopeFrom =~ /^bounce\@example.org$/`, "X=1"},
		{"ALL", `header X ALL =~ /^Cc: c\@example.com$/m`, "X=1"},
		{"absent is empty", `header X X-Absent =~ /^$/`, "X=1"},
		{"absent doesn't match", `header X X-Absent !~ /a/`, "X=1"},
		{"absent with a stand-in", `header X X-Absent =~ /^none$/ [if-unset: none]`, "X=1"},
		{"present without a stand-in", `header X Cc =~ /^none$/ [if-unset: none]`, ""},
		{"exists", "header X exists:X-Empty\nheader Y exists:X-Absent", "X=1"},
		{"negated", `header X Subject !~ /more/`, ""},
		{"body has the subject first", "body X /^Gr.+ more$/\ntflags X nosubject\nbody Y /^Gr.+ more$/", "Y=1"},
		{"body by lines", "body X /text.Second/s\nbody Y /^Second/", "Y=1"},
		{"rawbody by chunks", `rawbody X /text.Second/s`, "X=1"},
		{"full", `full X /^X-Empty:.*Message-ID.*Second line$/ms`, "X=1"},
		{"uri", `uri X m{^https://example\.net/}`, "X=1"},
		{"mimeheader", `mimeheader X Cc =~ /^c/`, "X=1"},
		{"hits count once", "body X /line/\nmeta Y X == 1", "X=1 Y=1"},
		{"multiple hits count", "body __X /i/\ntflags __X multiple\nmeta Y __X == 3", "Y=1"},
		{"at most maxhits", "body __X /i/\ntflags __X multiple maxhits=2\nmeta Y __X == 2", "Y=1"},
		{"maxhits alone", "body __X /i/\ntflags __X maxhits=2\nmeta Y __X == 1", "Y=1"},
		{"defaults of scores", "body A /text/\nbody T_B /text/\nbody C /text/\ntflags C nice\nbody __D /text/", "A=1 C=-1 T_B=0.01"},
		{"score 0 is off, for metas too", "body A /text/\nscore A 0\nmeta B A\nmeta C !A", "C=1"},
		{"later lines win", "body A /text/\nscore A 1\nscore A 2\nbody A /line/\nbody B /text/\nbody B /nowhere/", "A=2"},
		{"later kinds win", "body A /text/\nheader A exists:Cc\nmeta B A", "A=1 B=1"},
		{"metas before what they need", "meta A B && !C\nmeta B D + D > 1\nmeta C 0\nbody D /text/", "A=1 B=1 D=1"},
		{"symbols of others", "meta A SPF_PASS && !SPF_FAIL", "A=1"},
		{"scores of others", "score SPF_PASS -0.5\nscore DKIM_BAD 3", "DKIM_BAD=1 SPF_PASS=-0.5"},
		{"pattern on octets", `header X Subject =~ /^Gr..../`, "X=1"},
		{"stand-in with a condition", "if (version >= 3.0)\nbody A /text/\nelse\nbody A /nowhere/\nendif\nifplugin Foo\nbody B /text/\nendif", "A=1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := letter(t, msg)
			m.sender = "bounce@example.org"
			m.content.URIs = []mail.URI{{URI: "mailto:x@example.org"}, {URI: "https://example.net/a"}}
			m.symbols = map[string]verdict.Score{"SPF_PASS": 0, "DKIM_BAD": 2 * verdict.Point}
			set, _ := load(t, tt.cf+"\n", Options{})
			if got := hits(t, set, m); got != tt.want {
				t.Errorf("hits %q, want %q", got, tt.want)
			}
		})
	}
}

func TestMetaArithmetic(t *testing.T) {
	values := map[string]float64{"ZERO": 0, "ONE": 1, "TWO": 2, "FIVE": 5}
	tests := []struct {
		src  string
		want float64
	}{
		{"1 + 2 * 3", 7}, {"(1 + 2) * 3", 9}, {"7 - 2 - 1", 4}, {"8 / 4 / 2", 1}, {"7 % 4", 3}, {"-7 % 4", 1},
		{"ONE / ZERO", 0}, {"5 % ZERO", 0}, {"TWO && FIVE", 5}, {"TWO || FIVE", 2}, {"ZERO || FIVE", 5}, {"ZERO && FIVE", 0},
		{"!TWO", 0}, {"!ZERO", 1}, {"!!FIVE", 1}, {"!ZERO + 1", 2}, {"-TWO + 3", 1}, {"+TWO", 2},
		{"1 < 2", 1}, {"2 <= 2", 1}, {"3 > 2 == 1", 1}, {"2 >= 3", 0}, {"1 != 2", 1}, {"1 == 2", 0},
		{"6 & 3", 2}, {"6 | 3", 7}, {"6 ^ 3", 5}, {"1 | 0 && 0", 0}, {"ONE && TWO || ZERO && FIVE", 2},
		{"(ONE + TWO + FIVE) > 7", 1}, {".5 + 0.25", 0.75}, {"local_tests_only", 1}, {"\tONE\t+\tONE ", 2},
	}
	var names []string
	for _, tt := range tests {
		names = names[:0]
		e, err := parseMeta(tt.src, func(n string) int { names = append(names, n); return len(names) - 1 })
		if err != nil {
			t.Errorf("%s: %v", tt.src, err)
			continue
		}
		v := make([]float64, len(names))
		for i, n := range names {
			v[i] = values[n]
		}
		if got := e(v); got != tt.want {
			t.Errorf("%s = %v, want %v", tt.src, got, tt.want)
		}
	}
}

func TestScoreSets(t *testing.T) {
	for i, want := range []string{"A=1", "A=2", "A=3", "A=4"} {
		set, _ := load(t, "body A /text/\nscore A 1 2 3 4\n", Options{ScoreSet: i})
		if got := hits(t, set, letter(t, "Subject: x\n\ntext")); got != want {
			t.Errorf("set %d: %q", i, got)
		}
	}
}

func TestAddresses(t *testing.T) {
	tests := []struct{ field, want string }{
		{"lee@example.org", "|lee@example.org"},
		{"Lee Park <lee@example.org>", "Lee Park|lee@example.org"},
		{`"Park, Lee" <lee@example.org>, kim@example.net`, "Park, Lee|lee@example.org;|kim@example.net"},
		{"lee@example.org (Lee, who else)", "Lee, who else|lee@example.org"},
		{`"a \"b\" c"<x@example.org>`, `a "b" c|x@example.org`},
		{"=?utf-8?q?J=C3=B6rg?= <j@example.org>", "Jörg|j@example.org"},
		{"friends: a@example.org, b@example.org;", "|a@example.org;|b@example.org"},
		{"<a@example.org", "|a@example.org"},
		{"Name <one@example.org> <two@example.org>", "Name <one@example.org>|two@example.org"},
		{"", ""}, {",,;", ""},
	}
	for _, tt := range tests {
		var got []string
		for _, m := range parseAddresses(mail.Field{Value: tt.field}) {
			got = append(got, m.name+"|"+m.addr)
		}
		if s := strings.Join(got, ";"); s != tt.want {
			t.Errorf("%q: %q, want %q", tt.field, s, tt.want)
		}
	}
	if n := len(parseAddresses(mail.Field{Value: strings.Repeat("a@example.org,", maxMailboxes+5)})); n != maxMailboxes {
		t.Errorf("%d mailboxes", n)
	}
}

// TestBudget: what didn't fit into the time is said, what was found before is
// kept.
func TestBudget(t *testing.T) {
	set, _, err := Load(nil, Options{Builtin: true})
	if err != nil {
		t.Fatal(err)
	}
	in := scanners.Input{Direction: envelope.Inbound}
	res := judge(t, New(set, time.Nanosecond), example("\n\nhello"), in)
	var partial *verdict.Finding
	for i, f := range res.Findings {
		if f.Symbol == SymbolPartial {
			partial = &res.Findings[i]
		}
	}
	if res.Complete || partial == nil || partial.Kind != verdict.KindUnchecked || partial.Score != 0 {
		t.Errorf("a budget that is used up: complete %v, %v", res.Complete, res.Findings)
	}
	if res := judge(t, New(set, time.Hour), example("\n\nhello"), in); !res.Complete {
		t.Errorf("a budget that isn't: %v", res.Findings)
	}

	past, cancel := context.WithDeadline(context.Background(), time.Unix(0, 0))
	defer cancel()
	out, err := set.evaluate(past, letter(t, "Subject: x\n\ny"), time.Hour)
	if err != nil || !out.partial {
		t.Errorf("a deadline that is past: %v %v", out, err)
	}
}

func TestCanceledIsAnError(t *testing.T) {
	s := builtin(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	spool, err := mail.NewSpool(mail.SpoolOptions{Dir: t.TempDir() + "/spool", MemoryLimit: 1 << 20, MaxBytes: 1 << 20, MaxMessage: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	m := spool.New()
	defer m.Close()
	if _, err := m.ReadFrom(strings.NewReader("Subject: x\r\n\r\ny\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Scan(ctx, &scanners.Input{Message: m, Envelope: &envelope.Envelope{}}); !errors.Is(err, context.Canceled) {
		t.Errorf("err %v", err)
	}
}

// TestOneSetForAll: a set is shared between messages that are judged at once.
func TestOneSetForAll(t *testing.T) {
	set, _, err := Load(nil, Options{Builtin: true})
	if err != nil {
		t.Fatal(err)
	}
	text := "From: PayPal <x@example.org>\nSubject: Claim your prize\n\nViagra at http://192.0.2.1/"
	want := hits(t, set, letter(t, text))
	var wg sync.WaitGroup
	for range 8 {
		m := letter(t, text)
		wg.Go(func() {
			out, err := set.evaluate(context.Background(), m, time.Minute)
			var got []string
			for _, f := range out.findings {
				got = append(got, f.Symbol+"="+f.Score.String())
			}
			if s := strings.Join(got, " "); err != nil || s != want {
				t.Errorf("hits %q, want %q (%v)", s, want, err)
			}
		})
	}
	wg.Wait()
}

func BenchmarkScan5kB(b *testing.B) {
	set, _, err := Load(nil, Options{Builtin: true})
	if err != nil {
		b.Fatal(err)
	}
	line := "A line of an ordinary mail in which nothing is sold, 42 words or so, see https://example.org/a?b=c for more\n"
	m := letter(b, "From: Lee Park <lee@example.org>\nTo: Kim <kim@example.net>\nSubject: Meeting\nDate: Mon, 23 Nov 2026 09:12:44 +0000\nMessage-ID: <1@example.org>\n\n"+strings.Repeat(line, 5_000/len(line)))
	for range 5 {
		m.content.URIs = append(m.content.URIs, mail.URI{URI: "https://example.org/a?b=c"})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := set.evaluate(context.Background(), m, time.Minute); err != nil {
			b.Fatal(err)
		}
	}
}
