package rules

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/internal/mail"
	"sluice/internal/testkit"
	"sluice/internal/verdict"
)

// letter makes a message as rules see it: header lines, a blank line, then
// paragraphs, one a line.
func letter(t testing.TB, text string) *message {
	t.Helper()
	head, body, _ := strings.Cut(strings.TrimLeft(text, "\n"), "\n\n")
	h := &mail.Header{}
	for line := range strings.SplitSeq(head, "\n") {
		name, value, ok := strings.Cut(line, ":")
		switch {
		case line == "":
		case line[0] == ' ' || line[0] == '\t':
			h.Fields[len(h.Fields)-1].Value += "\r\n" + line
		case !ok:
			t.Fatalf("%q is not a header line", line)
		default:
			h.Fields = append(h.Fields, mail.Field{Name: name, Value: value})
		}
	}
	m := &message{header: h, content: &mail.Content{Subject: h.Text("Subject")}, symbols: map[string]verdict.Score{}}
	m.parts = []*mail.Part{{Header: h, Type: "text/plain"}}
	if body != "" {
		m.content.Paragraphs = strings.Split(strings.TrimSuffix(body, "\n"), "\n")
		m.content.Raw = []string{body}
	}
	m.full = func(n int64) (string, error) { s := text; return s[:min(int(n), len(s))], nil }
	return m
}

// load writes a .cf file and loads it.
func load(t testing.TB, cf string, opts Options) (*Ruleset, []Problem) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "local.cf")
	if err := os.WriteFile(path, []byte(cf), 0o600); err != nil {
		t.Fatal(err)
	}
	set, problems, err := Load([]string{path}, opts)
	if err != nil {
		t.Fatal(err)
	}
	return set, problems
}

// hits returns the symbols and scores that a set gives a message: "A=1 B=2.5".
func hits(t testing.TB, set *Ruleset, m *message) string {
	t.Helper()
	out, err := set.evaluate(context.Background(), m, time.Minute)
	if err != nil || out.partial {
		t.Fatalf("evaluate: partial %v, %v", out.partial, err)
	}
	var all []string
	for _, f := range out.findings {
		all = append(all, f.Symbol+"="+f.Score.String())
	}
	return strings.Join(all, " ")
}

func TestBuiltinLoadsWithoutProblems(t *testing.T) {
	set, problems, err := Load(nil, Options{Builtin: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Error(p)
	}
	if set.Coverage().Rules == 0 {
		t.Error("no rules")
	}
}

func TestGTUBE(t *testing.T) {
	set, _, err := Load(nil, Options{Builtin: true})
	if err != nil {
		t.Fatal(err)
	}
	pad := strings.Repeat("Nothing to see in this line of padding.\n", 1_500_000/40)
	for name, body := range map[string]string{
		"plain":   "Dear friend,\n" + testkit.GTUBE(),
		"padded":  "Dear friend,\n" + testkit.GTUBE() + "\n" + pad,
		"behind":  pad + testkit.GTUBE(),
		"midline": strings.Repeat("word ", 3000) + testkit.GTUBE(),
	} {
		t.Run(name, func(t *testing.T) {
			got := hits(t, set, letter(t, "From: a@example.org\nTo: b@example.net\nSubject: Hello\n\n"+body))
			if !strings.Contains(got, "GTUBE=1000") {
				t.Errorf("hits %q", got)
			}
		})
	}
	if got := hits(t, set, letter(t, "Subject: Hello\n\n"+testkit.GTUBE()[:40])); strings.Contains(got, "GTUBE") {
		t.Errorf("half the string: hits %q", got)
	}
}
