package gateway

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/mail"
	"sluice/internal/verdict"
	"sluice/policy"
)

func points(f float64) verdict.Score { return verdict.Points(f) }

func symbols(names ...string) []verdict.Finding {
	var fs []verdict.Finding
	for _, n := range names {
		fs = append(fs, verdict.Finding{Symbol: n, Kind: verdict.KindSpam})
	}
	return fs
}

func TestSpamStatus(t *testing.T) {
	for _, tc := range []struct {
		name string
		b    policy.Bearing
		want string
	}{
		{"spam", policy.Bearing{Flag: true, Score: points(7.3), Required: points(5), Symbols: symbols("C", "A", "B")},
			"Yes, score=7.3 required=5.0 tests=A,B,C"},
		{"nothing counted", policy.Bearing{Required: points(5)}, "No, score=0.0 required=5.0 tests=none"},
		{"negative", policy.Bearing{Score: points(-1.25), Required: points(5), Symbols: symbols("A", "A")}, "No, score=-1.3 required=5.0 tests=A"},
		{"ham that rounds to what is required", policy.Bearing{Score: points(4.96), Required: points(5)}, "No, score=4.9 required=5.0 tests=none"},
		{"spam that equals it", policy.Bearing{Flag: true, Score: points(5), Required: points(5)}, "Yes, score=5.0 required=5.0 tests=none"},
		{"accepted though above", policy.Bearing{Score: points(9), Required: points(5)}, "No, score=9.0 required=5.0 tests=none"},
		{"foreign text in a symbol", policy.Bearing{Required: points(5), Symbols: symbols("A\r\nX-Evil: 1", "B,C", "Grüße")},
			"No, score=0.0 required=5.0 tests=A__X-Evil__1,B_C,Gr__e"},
		{"folded at commas", policy.Bearing{Required: points(5), Symbols: symbols("SL_AAAAAAAAAAAAAAAA", "SL_BBBBBBBBBBBBBBBB", "SL_CCCCCCCCCCCCCCCCC")},
			"No, score=0.0 required=5.0 tests=SL_AAAAAAAAAAAAAAAA,\n\tSL_BBBBBBBBBBBBBBBB,SL_CCCCCCCCCCCCCCCCC"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := spamStatus(tc.b); got != tc.want {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

func TestSpamStatusLinesStayShort(t *testing.T) {
	var names []string
	for i := range 1000 {
		names = append(names, fmt.Sprintf("SL_%0*d", 1+i%60, i))
	}
	v := spamStatus(policy.Bearing{Required: points(5), Symbols: symbols(names...)})
	for i, line := range strings.Split(v, "\n") {
		if i == 0 {
			line = "X-Spam-Status: " + line
		}
		if n := len(strings.ReplaceAll(line, "\t", "        ")); n > lineWidth {
			t.Errorf("line of %d columns: %q", n, line)
		}
	}
	if n := strings.Count(v, ",") - 1; n >= maxTests {
		t.Errorf("%d tests are written", n+1)
	}
}

func TestSpamLevel(t *testing.T) {
	for score, want := range map[float64]int{-3: 0, 0.99: 0, 1: 1, 7.3: 7, 50: 50, 1000: 50} {
		if got := len(spamLevel(points(score))); got != want {
			t.Errorf("%v: %d stars", score, got)
		}
	}
}

func TestVirusStatus(t *testing.T) {
	run := func(complete bool) []verdict.ScannerRun {
		return []verdict.ScannerRun{{Name: clamav, Required: true, Complete: complete}}
	}
	found := func(k verdict.Kind, detail string) []verdict.Finding {
		return []verdict.Finding{{Scanner: clamav, Kind: k, Symbol: "CLAMAV", Detail: detail}}
	}
	for _, tc := range []struct {
		name   string
		v      verdict.Verdict
		wanted bool
		want   string
	}{
		{"whole mail", verdict.Verdict{Scanners: run(true)}, true, "Clean"},
		{"clamd gave no answer", verdict.Verdict{Scanners: run(false)}, true, "Unchecked"},
		{"answer about a part", verdict.Verdict{Scanners: run(true), Findings: found(verdict.KindUnchecked, "x")}, true, "Unchecked"},
		{"no scanner", verdict.Verdict{}, true, "Unchecked"},
		{"nobody wants it", verdict.Verdict{Scanners: run(true)}, false, "Unchecked"},
		{"virus", verdict.Verdict{Scanners: run(true), Findings: found(verdict.KindVirus, "Eicar-Test-Signature")}, true, "Infected (Eicar-Test-Signature)"},
		{"virus with an odd name", verdict.Verdict{Scanners: run(true), Findings: found(verdict.KindVirus, "A (b)\r\nä")}, true, "Infected (A _b_???)"},
		{"virus without a name", verdict.Verdict{Scanners: run(true), Findings: found(verdict.KindVirus, "")}, true, "Infected (CLAMAV)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := virusStatus(bearer{verdict: &tc.v, virusWanted: tc.wanted}); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestFieldChanges(t *testing.T) {
	v := &verdict.Verdict{Scanners: []verdict.ScannerRun{{Name: clamav, Complete: true}}}
	header := []mail.Field{
		{Name: "From", Value: " a@example.org"}, {Name: "Subject", Value: " Offer"}, {Name: "X-Spam-Flag", Value: " YES"},
		{Name: "X-Sluice-Ticket", Value: " t"},
	}
	m := bearer{verdict: v, header: header, id: "id-1", host: "mx.example.net", ids: []string{"mx.example.net"}, virusWanted: true}
	kept := "From: a@example.org\nSubject: Offer\n"
	for _, tc := range []struct {
		name string
		b    policy.Bearing
		want string
	}{
		{"clean", policy.Bearing{SpamFields: true, Score: points(-0.1), Required: points(5), Symbols: symbols("A")},
			"X-Spam-Status: No, score=-0.1 required=5.0 tests=A\nX-Spam-Score: -0.1\nX-Virus-Scanned: Sluice at mx.example.net\nX-Virus-Status: Clean\nX-Sluice-ID: id-1\n" + kept},
		{"below tag_score", policy.Bearing{}, "X-Virus-Scanned: Sluice at mx.example.net\nX-Virus-Status: Clean\nX-Sluice-ID: id-1\n" + kept},
		{"marked", policy.Bearing{SpamFields: true, Flag: true, Score: points(7.3), Required: points(5), Symbols: symbols("B", "A"), Tags: []string{"[SPAM] "}, Class: verdict.ClassMarked},
			"X-Spam-Flag: YES\nX-Spam-Status: Yes, score=7.3 required=5.0 tests=A,B\nX-Spam-Score: 7.3\nX-Spam-Level: *******\nX-Virus-Scanned: Sluice at mx.example.net\nX-Virus-Status: Clean\nX-Sluice-ID: id-1\nFrom: a@example.org\nSubject: [SPAM] Offer\n"},
		{"unchecked", policy.Bearing{Class: verdict.ClassUnchecked, Cause: &verdict.Finding{Symbol: "ENCRYPTED_ARCHIVE", Part: "2.1"}},
			"X-Virus-Scanned: Sluice at mx.example.net\nX-Virus-Status: Clean\nX-Sluice-Class: unchecked; reason=ENCRYPTED_ARCHIVE; part=2.1\nX-Sluice-ID: id-1\n" + kept},
		{"outbound", policy.Bearing{Outbound: true, Flag: true, SpamFields: true, Tags: []string{"[SPAM] "}}, kept},
		{"observed", policy.Bearing{Untouched: true, Flag: true, Tags: []string{"[SPAM] "}}, kept + "X-Spam-Flag: YES\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := written(applied(t, header, fieldChanges(tc.b, m)))
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestSubjectOfSignedMailStays(t *testing.T) {
	for _, tc := range []struct {
		contentType string
		keeps       bool
	}{
		{` multipart/signed; protocol="application/pgp-signature"; boundary=b`, true},
		{" Multipart/Signed;\r\n\tprotocol=x", true},
		{" (a comment) multipart/encrypted; boundary=b", true},
		{" application/pkcs7-mime; smime-type=signed-data", true},
		{" application/x-pkcs7-mime", true},
		{" multipart/mixed; boundary=signed", false},
		{"", false},
	} {
		header := []mail.Field{{Name: "Subject", Value: " Offer"}, {Name: "content-type", Value: tc.contentType}}
		m := bearer{verdict: &verdict.Verdict{}, header: header, id: "1"}
		got := applied(t, header, fieldChanges(policy.Bearing{Flag: true, Tags: []string{"[SPAM] "}}, m))
		want := "[SPAM] Offer"
		if tc.keeps {
			want = "Offer"
		}
		if d := cmp.Diff([]string{want}, valuesOf(got, "Subject")); d != "" {
			t.Errorf("%q: %s", tc.contentType, d)
		}
		if d := cmp.Diff([]string{"YES"}, valuesOf(got, "X-Spam-Flag")); d != "" {
			t.Errorf("%q: %s", tc.contentType, d)
		}
	}
}

func TestEverySubjectThatIsShownIsTagged(t *testing.T) {
	header := []mail.Field{{Name: "Subject", Value: " one"}, {Name: "SUBJECT", Value: " two"}, {Name: "subject", Value: " three"}}
	m := bearer{verdict: &verdict.Verdict{}, header: header, id: "1"}
	got := applied(t, header, fieldChanges(policy.Bearing{Tags: []string{"[SPAM] "}}, m))
	if d := cmp.Diff([]string{"[SPAM] one", "two", "[SPAM] three"}, valuesOf(got, "Subject")); d != "" {
		t.Error(d)
	}
}

// TestNothingForgedStays is a property: whatever fields arrive, afterwards those
// with a filter's names are ours alone, once each, X-Spam-Prev-* stay, and every
// line that we wrote is 7-bit and short enough.
func TestNothingForgedStays(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	names := []string{"X-Spam-Flag", "x-spam-flag", "X-SPAM-Status", "X-Spam-Level ", "X-Virus-Status", "X-Virus-Scanned", "X-Sluice-ID", "x-sluice-class",
		"X-Sluice-Ticket", "X-Quarantine-ID", "X-Spam-Prev-Subject", "Authentication-Results", "authentication-results", "Subject", "subject", "Received", "From"}
	values := []string{" YES", " mx.example.net; spf=pass", " mx.example.org; spf=pass", "", " (", " =?utf-8?Q?[SPAM]_x?=", " \xff\x00", " a\r\n\tb", strings.Repeat(" long", 500)}
	for range 2000 {
		var header []mail.Field
		prev, foreign := 0, 0
		for range rng.IntN(30) {
			f := mail.Field{Name: names[rng.IntN(len(names))], Value: values[rng.IntN(len(values))]}
			header = append(header, f)
			if isNamed(f.Name, "x-spam-prev-subject") {
				prev++
			}
			if isResults(f.Name) && !claimsOurID(f.Value, []string{"mx.example.net"}) {
				foreign++
			}
		}
		b := policy.Bearing{
			SpamFields: rng.IntN(2) == 0, Flag: rng.IntN(2) == 0, Score: points(rng.Float64()*40 - 10), Required: points(5),
			Symbols: symbols("A", "B\r\nX: y"), Class: verdict.Class(rng.IntN(8)), Cause: &verdict.Finding{Symbol: "S\nT", Part: "1.2\n"}, Tags: []string{"[SPAM] "},
		}
		m := bearer{verdict: &verdict.Verdict{}, header: header, id: "0192", host: "mx.example.net\r\nEvil: 1", ids: []string{"mx.example.net"}, virusWanted: true}
		changes := fieldChanges(b, m)
		ours := map[string]string{}
		for _, c := range changes {
			if c.Op != policy.DeleteField {
				checkValue(t, c.Name, c.Value)
			}
			if c.Op == policy.InsertField {
				ours[fieldKey(c.Name)] = strings.TrimSpace(c.Value)
			}
		}
		got := applied(t, header, changes)
		for _, f := range got {
			if isVerdictField(f.Name) && ours[fieldKey(f.Name)] != strings.TrimSpace(f.Value) {
				t.Fatalf("%s: %q is not ours\n%s", f.Name, f.Value, written(header))
			}
		}
		for name := range ours {
			if n := len(valuesOf(got, name)); name != "subject" && n != 1 {
				t.Fatalf("%s is there %d times", name, n)
			}
		}
		if len(valuesOf(got, "X-Spam-Prev-Subject")) != prev || len(valuesOf(got, "Authentication-Results")) != foreign {
			t.Fatalf("too much was removed:\n%s\nbecame\n%s", written(header), written(got))
		}
		if i := slices.IndexFunc(got, func(f mail.Field) bool { return isNamed(f.Name, "x-sluice-id") }); i > 10 {
			t.Fatalf("our fields don't stand on top: %d", i)
		}
	}
}
