package file_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/internal/envelope"
	"sluice/policy/file"
)

// TestPieces: a large file, read in pieces, gives what it gives as a whole: the
// same policies, the same problems at the same places.
func TestPieces(t *testing.T) {
	var b strings.Builder
	b.WriteString("# a provider\n\npolicies:\n  # plans\n  - match: \"=gold\"\n    quarantine_days: 7\n")
	for i := range 300 {
		fmt.Fprintf(&b, "  - match: \"@c%d.example.org\"   # customer %d\n    like: gold\n    rate_limit: %d\n", i, i, i)
	}
	good := b.String()
	bad := strings.NewReplacer("rate_limit: 200\n", "rate_limt: 200\n", "like: gold\n    rate_limit: 250\n", "like: silver\n    rate_limit: 250\n",
		"rate_limit: 222\n", "mark_score: 99\n    kill_score: 98\n", "@c123.", "@c3.", "rate_limit: 17\n", "rate_limit: x\n").Replace(good)

	for _, size := range []int{1, 100, 1000, 5000} {
		s, problems := file.ParseInPieces("p", []byte(good), file.Options{Built: all}, size)
		if problems != nil || s.Len() != 301 {
			t.Fatalf("pieces of %d: %v", size, problems)
		}
		for i := range 300 {
			if e := s.Inbound(envelope.Parse(fmt.Sprintf("u@c%d.example.org", i))); e.RateLimit != i || e.QuarantineDays != 7 {
				t.Fatalf("pieces of %d: customer %d has %d, %d", size, i, e.RateLimit, e.QuarantineDays)
			}
		}
		_, want := file.Parse("p", []byte(bad), file.Options{Built: all})
		_, got := file.ParseInPieces("p", []byte(bad), file.Options{Built: all}, size)
		if len(want) != 5 || !slices.Equal(got, want) {
			t.Errorf("pieces of %d:\n%v\nwhole:\n%v", size, got, want)
		}
	}
}

// TestPiecesHideNothing: what stands between or behind the policies is told in
// pieces as it is in a whole.
func TestPiecesHideNothing(t *testing.T) {
	item := "  - match: \"@%d.example.org\"\n    subject_tag: \"x\"\n"
	var items string
	for i := range 20 {
		items += fmt.Sprintf(item, i)
	}
	for _, tt := range []struct{ name, text string }{
		{"another key behind", "policies:\n" + items + "extra:\n" + items},
		{"the key twice", "policies:\n" + items + "policies:\n" + strings.ReplaceAll(items, "example", "invalid")},
		{"a second document", "policies:\n" + items + "---\npolicies:\n" + items},
		{"an item without indentation", "policies:\n" + items + "- match: \"@.\"\n" + items},
		{"a quoted text over several lines", "policies:\n" + items + "  - match: \"@.\"\n    subject_tag: \"a\n" + strings.ReplaceAll(items, "\"", "'") + "  b\"\n"},
		{"policies twice over pieces", "policies:\n" + items + items},
	} {
		if s, problems := file.ParseInPieces("p", []byte(tt.text), file.Options{Built: all}, 60); s != nil || len(problems) == 0 {
			t.Errorf("%s: read without a problem", tt.name)
		}
	}
	for _, text := range []string{"", "policies: []\n", "policies:\n", "{policies: [{match: \"@.\"}]}\n", "policies:\n  - {match: \"@.\"}\r\n  - {match: \"@example.org\"}\r\n"} {
		want, _ := file.Parse("p", []byte(text), file.Options{})
		got, problems := file.ParseInPieces("p", []byte(text), file.Options{}, 1)
		if (want == nil) != (got == nil) || got != nil && got.Len() != want.Len() {
			t.Errorf("%q: %v", text, problems)
		}
	}
}
