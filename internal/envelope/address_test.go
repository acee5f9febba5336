package envelope_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"sluice/internal/envelope"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, path         string
		local, domain, key string
		text               string
	}{
		{"plain", "kim@example.org", "kim", "example.org", "kim@example.org", "kim@example.org"},
		{"in brackets", "<kim@example.org>", "kim", "example.org", "kim@example.org", "kim@example.org"},
		{"in another case", "Kim@EXAMPLE.Org", "Kim", "example.org", "kim@example.org", "Kim@EXAMPLE.Org"},
		{"null", "<>", "", "", "", ""},
		{"null without brackets", "", "", "", "", ""},
		{"local part alone", "root", "root", "", "root", "root"},
		{"quoted", `<"kim park"@example.org>`, "kim park", "example.org", "kim park@example.org", `"kim park"@example.org`},
		{"quoted at sign", `"a@b"@example.org`, "a@b", "example.org", "a@b@example.org", `"a@b"@example.org`},
		{"quoted backslash", `"a\"b"@example.org`, `a"b`, "example.org", `a"b@example.org`, `"a\"b"@example.org`},
		{"needless quotes", `"kim"@example.org`, "kim", "example.org", "kim@example.org", `"kim"@example.org`},
		{"source route", "<@a.example,@b.example:kim@example.org>", "kim", "example.org", "kim@example.org", "@a.example,@b.example:kim@example.org"},
		{"trailing dot", "kim@example.org.", "kim", "example.org", "kim@example.org", "kim@example.org."},
		{"U-label", "kim@Bücher.example", "kim", "xn--bcher-kva.example", "kim@xn--bcher-kva.example", "kim@Bücher.example"},
		{"domain literal", "kim@[192.0.2.1]", "kim", "[192.0.2.1]", "kim@[192.0.2.1]", "kim@[192.0.2.1]"},
		{"IPv6 literal", "kim@[IPv6:2001:db8::1]", "kim", "[ipv6:2001:db8::1]", "kim@[ipv6:2001:db8::1]", "kim@[IPv6:2001:db8::1]"},
		{"no local part", "@example.org", "", "example.org", "@example.org", "@example.org"},
		{"nothing but an at sign", "@", "", "", "", "@"},
		{"blanks around", " <kim@example.org> ", "kim", "example.org", "kim@example.org", "kim@example.org"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := envelope.Parse(tt.path)
			if a.Local != tt.local || a.Domain != tt.domain || a.Key() != tt.key || a.String() != tt.text {
				t.Errorf("local %q domain %q key %q text %q", a.Local, a.Domain, a.Key(), a.String())
			}
			if a.IsNull() != (tt.text == "") {
				t.Errorf("IsNull = %v", a.IsNull())
			}
		})
	}
}

func TestAddressMadeByHand(t *testing.T) {
	if got := (envelope.Address{Local: "kim", Domain: "example.org"}).String(); got != "kim@example.org" {
		t.Error(got)
	}
	if got := (envelope.Address{Local: "root"}).String(); got != "root" {
		t.Error(got)
	}
	if a := (envelope.Address{}); !a.IsNull() || a.String() != "" {
		t.Errorf("%q", a.String())
	}
}

func TestParseStrict(t *testing.T) {
	for _, s := range []string{"kim@example.org", "kim+x@sub.example.org", "kim@bücher.example", "kim@localhost", `"kim@park"@example.org`, "kim@[192.0.2.1]", "kim@[IPv6:2001:db8::1]", "größe@example.org"} {
		if a, err := envelope.ParseStrict(s); err != nil || a.String() != s {
			t.Errorf("%q: %v", s, err)
		}
	}
	for name, s := range map[string]string{
		"empty": "", "no domain": "kim", "no local part": "@example.org", "brackets": "<kim@example.org>", "blank": "kim @example.org",
		"blank behind": "kim@example.org ", "line end": "kim@example.org\n", "control": "k\x00m@example.org", "empty label": "kim@a..b",
		"bad sign": "kim@exa$mple.org", "two at signs": "a@b@example.org", "source route": "@a.example:kim@example.org",
		"bad literal": "kim@[no address]", "bad IP": "kim@[192.0.2.999]", "label too long": "kim@" + strings.Repeat("a", 64) + ".org",
		"too long": strings.Repeat("a", 400) + "@example.org",
	} {
		if _, err := envelope.ParseStrict(s); !errors.Is(err, envelope.ErrNotAddress) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeys(t *testing.T) {
	deep := "u@" + strings.Repeat("x.", 30) + "example.org"
	for _, tt := range []struct{ name, address, delimiters, want string }{
		{"all of DESIGN §4", "User+Ext@Sub.Example.ORG", "+", "user+ext@sub.example.org user@sub.example.org @sub.example.org @.sub.example.org @.example.org @.org @."},
		{"no extension", "user@example.org", "+", "user@example.org @example.org @.example.org @.org @."},
		{"no delimiters", "user+ext@example.org", "", "user+ext@example.org @example.org @.example.org @.org @."},
		{"several delimiters, the first in the text", "a-b+c@example.org", "+-", "a-b+c@example.org a@example.org @example.org @.example.org @.org @."},
		{"delimiter in front", "+ext@example.org", "+", "+ext@example.org @example.org @.example.org @.org @."},
		{"delimiter at the end", "user+@example.org", "+", "user+@example.org user@example.org @example.org @.example.org @.org @."},
		{"null", "", "+", "@."},
		{"no domain", "root", "+", "@."},
		{"no local part", "@example.org", "+", "@example.org @.example.org @.org @."},
		{"domain literal", "u@[192.0.2.1]", "+", "u@[192.0.2.1] @[192.0.2.1] @."},
		{"empty label", "u@a..org", "+", "u@a..org @a..org @.a..org @.org @."},
		{"dot in front", "u@.example.org", "+", "u@.example.org @.example.org @.org @."},
		{"nothing but dots", "u@..", "+", "u@. @."},
		{"dots at the end", "u@org..", "+", "u@org. @org. @.org. @."},
	} {
		if got := strings.Join(envelope.Keys(envelope.Parse(tt.address), tt.delimiters), " "); got != tt.want {
			t.Errorf("%s:\n got  %s\n want %s", tt.name, got, tt.want)
		}
	}
	keys := envelope.Keys(envelope.Parse(deep), "+")
	if len(keys) != 2+20+1 || !slices.Contains(keys, "@.example.org") || keys[1] != "@"+strings.Repeat("x.", 30)+"example.org" {
		t.Errorf("deep domain: %d keys, %v", len(keys), keys)
	}
}

// TestLongDomainsAreNotConverted: the conversion's time grows with the square of the
// length, and an address may be as long as its sender likes.
func TestLongDomainsAreNotConverted(t *testing.T) {
	var b strings.Builder
	for r := rune(0x4e00); b.Len() < 1<<20; r = 0x4e00 + (r-0x4e00+1)%20_000 {
		b.WriteRune(r)
	}
	long := b.String()
	if a := envelope.Parse("kim@" + long); a.Domain != long || envelope.ValidDomain(long) {
		t.Error("a domain of a mebibyte was converted")
	}
	fits := strings.Repeat("中.", 100) + "example"
	if got := envelope.ALabel(fits); !strings.HasPrefix(got, "xn--fiq.") {
		t.Errorf("a domain that fits was not converted: %q", got)
	}
}

func TestLookupParameter(t *testing.T) {
	ps := []envelope.Parameter{{Name: "BODY", Value: "8BITMIME"}, {Name: "SMTPUTF8"}}
	if v, ok := envelope.Lookup(ps, "body"); v != "8BITMIME" || !ok {
		t.Error(v, ok)
	}
	if v, ok := envelope.Lookup(ps, "smtputf8"); v != "" || !ok {
		t.Error(v, ok)
	}
	if _, ok := envelope.Lookup(ps, "SIZE"); ok {
		t.Error("SIZE was not given")
	}
}

func TestEnvelopeID(t *testing.T) {
	e := envelope.Envelope{SessionID: "s1"}
	if e.ID() != "s1" {
		t.Error(e.ID())
	}
	e.QueueID = "4Q1"
	if e.ID() != "4Q1" {
		t.Error(e.ID())
	}
	if envelope.Inbound.String() != "inbound" || envelope.Outbound.String() != "outbound" {
		t.Error("directions")
	}
}

// FuzzParse: reading never fails and loses nothing; keys are few, distinct and end
// with everyone; what is read strictly is read the same way again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"<kim@example.org>", "", "<>", "@a:b@c", `"a@b"@c`, "a@[IPv6:::1]", "a+b@BÜCHER.example.", "a@b@c", "@", "a@..", "\xff@\xfe.org", "a@b。c"} {
		f.Add(s, "+-")
	}
	f.Fuzz(func(t *testing.T, s, delimiters string) {
		a := envelope.Parse(s)
		bare := strings.TrimSpace(s)
		if strings.HasPrefix(bare, "<") && strings.HasSuffix(bare, ">") {
			bare = bare[1 : len(bare)-1]
		}
		if a.String() != bare {
			t.Fatalf("%q lost its text: %q", s, a.String())
		}
		if a.Domain != envelope.ALabel(a.Domain) && !strings.HasSuffix(a.Domain, ".") {
			t.Fatalf("domain %q is not in its final form", a.Domain)
		}
		keys := envelope.Keys(a, delimiters)
		if len(keys) > 24 || keys[len(keys)-1] != "@." {
			t.Fatalf("keys %q", keys)
		}
		seen := map[string]bool{}
		for _, k := range keys {
			if seen[k] || k != "@." && !strings.Contains(k, "@") {
				t.Fatalf("key %q in %q", k, keys)
			}
			seen[k] = true
		}
		b, err := envelope.ParseStrict(s)
		if err != nil {
			return
		}
		if b != a || !envelope.ValidDomain(b.Domain) || strings.ContainsAny(s, " \r\n<>\x00") {
			t.Fatalf("%q was read strictly as %+v", s, b)
		}
		if again := envelope.Parse(b.Key()); !strings.Contains(b.Local, `"`) && again.Key() != b.Key() {
			t.Fatalf("key %q is read as %q", b.Key(), again.Key())
		}
	})
}
