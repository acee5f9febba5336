package verdict_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"sluice/internal/verdict"
)

func TestPoints(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    float64
		want verdict.Score
	}{
		{"whole", 5, 50_000}, {"four decimals", -0.0001, -1}, {"rounded", 0.00005, 1}, {"rounded down", 0.000049, 0},
		{"not a number", math.NaN(), 0}, {"infinite", math.Inf(1), verdict.MaxScore}, {"too small", -1e30, -verdict.MaxScore},
	} {
		if got := verdict.Points(tt.f); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestParseScore(t *testing.T) {
	for s, want := range map[string]verdict.Score{"5": 50_000, " -0.01 ": -100, "1e3": 10_000_000, "0.00004": 0, "+1": 10_000} {
		if got, err := verdict.ParseScore(s); got != want || err != nil {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "x", "NaN", "inf", "-Inf", "1e30", "5 points"} {
		if got, err := verdict.ParseScore(s); err == nil {
			t.Errorf("%q: %d", s, got)
		}
	}
}

func TestScorePrinting(t *testing.T) {
	for _, tt := range []struct {
		s              verdict.Score
		text, one, two string
	}{
		{0, "0", "0.0", "0.00"}, {50_000, "5", "5.0", "5.00"}, {73_000, "7.3", "7.3", "7.30"}, {-1, "-0.0001", "0.0", "0.00"},
		{49_500, "4.95", "5.0", "4.95"}, {-49_500, "-4.95", "-5.0", "-4.95"}, {500, "0.05", "0.1", "0.05"}, {-449, "-0.0449", "0.0", "-0.04"},
		{verdict.MaxScore, "1000000000", "1000000000.0", "1000000000.00"},
	} {
		if tt.s.String() != tt.text || tt.s.Fixed(1) != tt.one || tt.s.Fixed(2) != tt.two {
			t.Errorf("%d: %s %s %s", tt.s, tt.s, tt.s.Fixed(1), tt.s.Fixed(2))
		}
	}
	if got := verdict.Score(15_001).Fixed(0); got != "2" {
		t.Error(got)
	}
	if got := verdict.Score(-15_001).Fixed(4); got != "-1.5001" {
		t.Error(got)
	}
}

// FuzzScore: what is printed is read again as the same number.
func FuzzScore(f *testing.F) {
	f.Add("5.00004")
	f.Add("-1e8")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := verdict.ParseScore(s)
		if err != nil {
			return
		}
		if w, err := verdict.ParseScore(v.String()); w != v || err != nil {
			t.Fatalf("%q: %d, again %d, %v", s, v, w, err)
		}
		if v > verdict.MaxScore || v < -verdict.MaxScore {
			t.Fatalf("%q is out of bounds: %d", s, v)
		}
	})
}

func TestWords(t *testing.T) {
	var a verdict.Action
	if err := a.UnmarshalText([]byte("quarantine")); err != nil || a != verdict.Quarantine {
		t.Error(a, err)
	}
	if err := a.UnmarshalText([]byte("Reject")); err == nil || a != verdict.Quarantine || !strings.Contains(err.Error(), "one of accept, tag") {
		t.Error(a, err)
	}
	// The orders that DESIGN §3 and §4 rest on.
	var actions, classes []string
	for _, a := range slices.Backward(verdict.AllActions()) {
		actions = append(actions, a.String())
	}
	for _, c := range slices.Backward(verdict.AllClasses()) {
		classes = append(classes, c.String())
	}
	if got := strings.Join(actions, " > "); got != "reject > discard > quarantine > tempfail > redirect > tag > accept" {
		t.Error(got)
	}
	if got := strings.Join(classes, " "); got != "virus banned ambiguous spam failed unchecked marked clean" {
		t.Error(got)
	}
	for _, a := range verdict.AllActions() {
		if a.Delivers() != (a == verdict.Accept || a == verdict.Tag) {
			t.Errorf("%v delivers: %v", a, a.Delivers())
		}
	}
	if got := verdict.Action(99).String(); got != "unknown(99)" {
		t.Error(got)
	}
}

// TestJSON is the promise of DESIGN §6.
func TestJSON(t *testing.T) {
	f := verdict.Finding{Symbol: "A", Kind: verdict.KindSpam, Score: 73_000, Description: "d", Scanner: "rules", Part: "2.1"}
	b, err := json.Marshal(f)
	if want := `{"symbol":"A","kind":"spam","score":7.3,"description":"d","scanner":"rules","part":"2.1"}`; string(b) != want || err != nil {
		t.Errorf("%s %v", b, err)
	}
	var g verdict.Finding
	if err := json.Unmarshal(b, &g); err != nil || g != f {
		t.Errorf("%+v %v", g, err)
	}
	if err := json.Unmarshal([]byte(`{"kind":"worm"}`), &g); err == nil {
		t.Error("an unknown kind was read")
	}
}

// TestSortIsTheSameForEveryOrder: gravest kind first, then the higher absolute
// score.
func TestSortIsTheSameForEveryOrder(t *testing.T) {
	want := []verdict.Finding{
		{Symbol: "V", Kind: verdict.KindVirus}, {Symbol: "B", Kind: verdict.KindSpam, Score: -9}, {Symbol: "A", Kind: verdict.KindSpam, Score: 5},
		{Symbol: "C", Kind: verdict.KindSpam, Score: 5, Part: "1"}, {Symbol: "C", Kind: verdict.KindSpam, Score: 5, Part: "2"}, {Symbol: "I"},
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 100 {
		got := slices.Clone(want)
		rng.Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
		verdict.Sort(got)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v", got)
		}
	}
}

func TestRunAndErrors(t *testing.T) {
	v := verdict.Verdict{Scanners: []verdict.ScannerRun{{Name: "rules", Complete: true}, {Name: "clamav", Err: "refused"}}}
	if r, ok := v.Run("clamav"); !ok || r.Err != "refused" {
		t.Error(r, ok)
	}
	if _, ok := v.Run("bayes"); ok {
		t.Error("bayes was not asked")
	}
	if got := v.Errors(); !slices.Equal(got, []string{"clamav: refused"}) {
		t.Error(got)
	}
	if (&verdict.Verdict{}).Errors() == nil {
		t.Error("no errors are an empty list in JSON")
	}
}

func TestMerge(t *testing.T) {
	d := func(a verdict.Action, c verdict.Class, score, mark verdict.Score, reason string) verdict.Decision {
		return verdict.Decision{Action: a, Class: c, Classes: []verdict.Class{c}, Score: score, Mark: mark, Kill: 3 * mark, Reason: reason}
	}
	for _, tt := range []struct {
		name        string
		a, b        verdict.Decision
		reason      string
		score, mark verdict.Score
		classes     []verdict.Class
	}{
		{"the more severe action", d(verdict.Tag, verdict.ClassVirus, 1, 5, "a"), d(verdict.Reject, verdict.ClassMarked, 2, 6, "b"), "b", 2, 5, []verdict.Class{verdict.ClassVirus, verdict.ClassMarked}},
		{"ties by class", d(verdict.Tag, verdict.ClassMarked, 3, 5, "a"), d(verdict.Tag, verdict.ClassSpam, 2, 4, "b"), "b", 3, 4, []verdict.Class{verdict.ClassSpam, verdict.ClassMarked}},
		{"ties: the first", d(verdict.Tag, verdict.ClassSpam, 2, 5, "a"), d(verdict.Tag, verdict.ClassSpam, 2, 4, "b"), "a", 2, 4, []verdict.Class{verdict.ClassSpam}},
	} {
		m := verdict.Merge(tt.a, tt.b)
		if m.Reason != tt.reason || m.Score != tt.score || m.Mark != tt.mark || m.Kill != 3*tt.mark || !slices.Equal(m.Classes, tt.classes) {
			t.Errorf("%s: %+v", tt.name, m)
		}
		if !m.Has(tt.a.Class) || !m.Has(tt.b.Class) || m.Has(verdict.ClassFailed) {
			t.Errorf("%s: classes %v", tt.name, m.Classes)
		}
	}
}

func TestPrintable(t *testing.T) {
	for _, tt := range []struct {
		name, s string
		max     int
		want    string
	}{
		{"plain", "Prämie", 10, "Prämie"}, {"controls", "a\r\nb\x00c\x7fd\u0085e\u2028f", 50, "a  b c d e f"}, {"not UTF-8", "a\xffb", 10, "a?b"},
		{"cut", "abcdef", 3, "abc"}, {"cut at a rune", "aää", 4, "aä"}, {"cut to nothing", "ä", 1, ""}, {"empty", "", 5, ""},
	} {
		if got := verdict.Printable(tt.s, tt.max); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// FuzzPrintable: one line, valid, bounded, and printing it again changes nothing.
func FuzzPrintable(f *testing.F) {
	f.Add("a\r\n\u2029ä\xff", 3)
	f.Fuzz(func(t *testing.T, s string, max int) {
		if max < 0 || max > 1000 {
			return
		}
		p := verdict.Printable(s, max)
		if len(p) > max || !utf8.ValidString(p) || strings.ContainsAny(p, "\r\n\x00\u2028\u2029\u0085\x7f") {
			t.Fatalf("%q", p)
		}
		if verdict.Printable(p, max) != p {
			t.Fatalf("%q changes again", p)
		}
	})
}
