package strictyaml

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type octal uint32

func (o *octal) UnmarshalText(b []byte) error {
	v, err := strconv.ParseUint(string(b), 8, 32)
	if err != nil {
		return &ValueError{"not a mode", "write it as 0660"}
	}
	*o = octal(v)
	return nil
}

// toggle is false or a section, as a scanner's.
type toggle struct {
	On   bool
	Size Size `yaml:"size"`
}

func (s *toggle) UnmarshalNode(n Node) {
	switch {
	case n.Kind() == Bool && n.Text() == "false":
		*s = toggle{}
	case n.Kind() == Map || n.Kind() == Null:
		type plain toggle
		p := plain{On: true, Size: s.Size}
		if n.Decode(&p) {
			*s = toggle(p)
		}
	default:
		n.Fail("wants false or keys with values", "")
	}
}

type common struct {
	Workers int `yaml:"workers"`
}

type sample struct {
	common
	Name    string             `yaml:"name"`
	On      bool               `yaml:"on"`
	Timeout time.Duration      `yaml:"timeout"`
	Size    Size               `yaml:"size"`
	Score   *float64           `yaml:"score"`
	Mode    octal              `yaml:"mode"`
	Port    uint16             `yaml:"port"`
	List    []string           `yaml:"list"`
	Map     map[string]*string `yaml:"map"`
	Sub     struct{ A, B int } `yaml:"sub"`
	Items   []item             `yaml:"items"`
	Scanner toggle             `yaml:"scanner"`
	Unread  string
	_       string
}

type item struct {
	Match string         `yaml:"match"`
	For   *time.Duration `yaml:"for"`
}

func ptr[T any](v T) *T { return &v }

func TestDecode(t *testing.T) {
	in := `
name: "x"
on: true
timeout: 1d12h
size: 1.5KiB
score: -0.25
mode: 0660
port: 25
workers: 3
list: [a, '@b', "!c"]
map: {k: v, gone: null}
scanner: { size: 7 }
items:
  - match: "@."
    for: 30d
  - match: x
    for: null
sub:
`
	var got sample
	doc, problems := Decode("f.yaml", []byte(in), &got)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := sample{common: common{3}, Name: "x", On: true, Timeout: 36 * time.Hour, Size: 1536, Score: ptr(-0.25), Mode: 0o660,
		Port: 25, List: []string{"a", "@b", "!c"}, Map: map[string]*string{"k": ptr("v"), "gone": nil},
		Items:   []item{{"@.", ptr(30 * day)}, {"x", nil}},
		Scanner: toggle{On: true, Size: 7}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(sample{}), cmp.AllowUnexported(common{})); d != "" {
		t.Error(d)
	}
	for _, c := range []struct {
		path      []any
		has       bool
		line, col int
	}{
		{[]any{"name"}, true, 2, 7},
		{[]any{"list", 1}, true, 10, 11},
		{[]any{"items", 1, "match"}, true, 16, 12},
		{[]any{"items", 1}, true, 16, 5},
		{[]any{"items", 1, "absent"}, false, 16, 5},
		{[]any{"absent", "deeper"}, false, 2, 1},
		{[]any{"map", "gone"}, true, 11, 13},
	} {
		line, col := doc.Position(c.path...)
		if line != c.line || col != c.col || doc.Has(c.path...) != c.has {
			t.Errorf("%v: %d:%d has %v, want %d:%d has %v", c.path, line, col, doc.Has(c.path...), c.line, c.col, c.has)
		}
	}
	p := doc.KeyProblem("m", "r", "items", 1, "for")
	if got := p.String(); got != "f.yaml:17:5: items[1].for: m; r" {
		t.Error(got)
	}
}

func TestEveryMistakeIsToldAtOnce(t *testing.T) {
	in := `nmae: x
name: 5
on: yes
timeout: 240
timeout: 4 hours
size: 10MB
score: high
mode: 0999
port: 70000
list: a
map: {k: [1], k: 2}
items:
  - match: x
    fro: 30d
    for: soon
  - nothing
  - {match: *x, match: y}
scanner: maybe
workers: 010
zebra: 1
<<: {a: 1}
`
	got := sample{Name: "kept", Timeout: time.Second, List: []string{"kept"}}
	_, problems := Decode("f.yaml", []byte(in), &got)
	want := `f.yaml:1:1: nmae: unknown key; did you mean name?
f.yaml:2:7: name: wants text, but this is a number; put it in quotes: "5"
f.yaml:3:5: on: wants true or false, but this is text; write true or false, without quotes
f.yaml:4:10: timeout: "240" is not a duration; a number needs its unit: "240s"
f.yaml:5:1: timeout: stands twice, first in line 4; remove one of the two
f.yaml:6:7: size: "10MB" is not a size; write bytes or a number with KiB, MiB, GiB or TiB, such as 100MiB
f.yaml:7:8: score: wants a number, but this is text
f.yaml:8:7: mode: not a mode; write it as 0660
f.yaml:9:7: port: 70000 is out of range
f.yaml:10:7: list: wants a list, but this is text; write ["a"]
f.yaml:11:10: map.k: wants text, but this is a list
f.yaml:11:15: map.k: stands twice, first in line 11; remove one of the two
f.yaml:14:5: items[0].fro: unknown key; did you mean for?
f.yaml:15:10: items[0].for: "soon" is not a duration; write it as 90s, 4h, 1h30m or 30d
f.yaml:16:5: items[1]: wants keys with values, but this is text
f.yaml:17:13: items[2].match: anchors and aliases (& and *) aren't read; put text that begins with such a sign in quotes
f.yaml:17:17: items[2].match: stands twice, first in line 17; remove one of the two
f.yaml:18:10: scanner: wants false or keys with values
f.yaml:19:10: workers: "010" is not a whole number; write it in plain digits
f.yaml:20:1: zebra: unknown key; known here: workers, name, on, timeout, size, score, mode, port, list, map, sub, items, scanner
f.yaml:21:1: this is not a plain key; write the keys out`
	if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(problems.Error(), "\n")); d != "" {
		t.Error(d)
	}
	if got.Name != "kept" || got.Timeout != time.Second || got.List[0] != "kept" {
		t.Errorf("a value with a mistake changed its target: %+v", got)
	}
}

func TestWhatIsNotOneDocument(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"syntax":          {"name: x\nlist: [a, b\non: true\n", "f:3:1: syntax error: "},
		"reserved sign":   {"name: @x\n", `f:1:7: syntax error: '@' is a reserved character; put text`},
		"tab":             {"sub:\n\ta: 1\n", "f:2:"},
		"two documents":   {"name: x\n---\nname: y\n", "f:3:1: a second document begins here"},
		"not UTF-8":       {"name: x\nlist: [\"\xff\"]\n", "f:2:9: this is not UTF-8"},
		"control":         {"name: \"a\x00\"\n", "f:1:9: a control character (0x00)"},
		"deep brackets":   {"list: " + strings.Repeat("[", 5000), "f:1:107: nested more than 100 levels deep"},
		"deep dashes":     {strings.Repeat("- ", 5000), "f:1:201: nested more than"},
		"deep tags":       {"name: " + strings.Repeat("!a ", 5000), "f:1:"},
		"a list at top":   {"- a\n", "f:1:1: wants keys with values, but this is a list"},
		"a scalar at top": {"x\n", "f:1:1: wants keys with values, but this is text"},
		"directive":       {"%YAML 1.2\n---\nname: x\n", "f:1:1: directives"},
	} {
		t.Run(name, func(t *testing.T) {
			var s sample
			doc, problems := Decode("f", []byte(c.in), &s)
			if len(problems) != 1 || !strings.HasPrefix(problems[0].String(), c.want) {
				t.Errorf("got %v, want %s…", problems, c.want)
			}
			if doc == nil {
				t.Error("no document")
			}
		})
	}
	for _, in := range []string{"", "# only a comment\n", "---\n", "\r\n", "name: x\r\n"} {
		if _, problems := Decode("f", []byte(in), &sample{}); problems.Err() != nil {
			t.Errorf("%q: %v", in, problems)
		}
	}
}

func TestProblemsAreBounded(t *testing.T) {
	var in strings.Builder
	for i := range 3 * MaxProblems {
		fmt.Fprintf(&in, "k%d: 1\n", i)
	}
	_, problems := Decode("f", []byte(in.String()), &sample{})
	if len(problems) != MaxProblems || problems[MaxProblems-1].Message != "more mistakes follow" {
		t.Errorf("%d problems, the last %v", len(problems), problems[len(problems)-1])
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]Size{
		"0": 0, "1": 1, "1048576": 1 << 20, "100MiB": 100 << 20, "4 GiB": 4 << 30, "1.5K": 1536, "2M": 2 << 20,
		"10G": 10 << 30, "1T": 1 << 40, "7B": 7, "": -1, "-1": -1, "1.5": -1, "10MB": -1, "10kB": -1, "1e3": -1, "x": -1,
		"9223372036854775807": math.MaxInt64, "9223372036854775808": -1, "9000000T": -1, "KiB": -1, "1KiBKiB": -1, "NaN": -1, "InfG": -1, "0x10": -1, "+1": -1,
	} {
		got, err := ParseSize(in)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "240s": 4 * time.Minute, "4h": 4 * time.Hour, "30d": 30 * day, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute,
		"1.5h": 90 * time.Minute, "50ms": 50 * time.Millisecond,
		"": -1, "d": -1, "5": -1, "-5s": -1, "1d-2h": -1, "1.5d": -1, "4 hours": -1, "200000d": -1, "1h2d": -1, "106751d24h": -1,
	} {
		got, err := ParseDuration(in)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
}

func TestSuggest(t *testing.T) {
	known := []string{"spam_action", "virus_action", "observe"}
	for in, want := range map[string]string{"spam_acton": "spam_action", "SPAM_ACTION": "spam_action", "obsreve": "observe", "zzz": "", "": ""} {
		if got := Suggest(in, known); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
