package file_test

import (
	"strings"
	"testing"

	"sluice/internal/envelope"
	"sluice/internal/strictyaml"
	"sluice/policy/file"
)

// FuzzParse: a policy file gives either a snapshot or bounded problems in order;
// what was read is in order: each policy answers for its own match. Read in pieces, a file is not read more leniently.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"policies:\n  - match: \"@.\"\n    mark_score: 6.0\n    quarantine: [virus, banned]\n  - match: \"@example.org\"\n    subject_tag: \"[SPAM] \"\n",
		"policies:\n  - {match: \"=p\", kill_score: 20}\n  - {match: a@b.example, like: p, direction: outbound}\n",
		"policies: [{match: \"@.\", allow_senders: {a.example: -1, \"@.b.example\": null}}]",
		"policies:\n  - match: \"@.\"\n    deny_senders: {x@a.example: {score: 5, final: true}}\n    max_size: 10MiB\n    failed_after: 4h\n",
		"policies:\n- match: &a \"@.\"\n- match: *a\n", "policies: {}\n", "policies:\n  - match: \"@bücher.example\"\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		s, problems := file.Parse("p", data, file.Options{Built: all, Delimiters: "+"})
		if (s == nil) != (len(problems) > 0) || len(problems) > strictyaml.MaxProblems {
			t.Fatalf("snapshot %v with %d problems", s, len(problems))
		}
		for i, p := range problems {
			if p.Message == "" || i > 0 && p.Line < problems[i-1].Line {
				t.Fatalf("out of order: %v", problems)
			}
		}
		if pieces, _ := file.ParseInPieces("p", data, file.Options{Built: all, Delimiters: "+"}, 16); pieces != nil {
			if s == nil || s.Len() != pieces.Len() {
				t.Fatalf("read in pieces as %v, as a whole: %v", pieces, problems)
			}
		}
		if s == nil {
			return
		}
		for _, d := range []envelope.Direction{envelope.Inbound, envelope.Outbound} {
			for _, a := range []string{"", "a@b.example", "u+x@sub.example.org", "@", "x@[192.0.2.1]"} {
				e := s.Lookup(d, envelope.Parse(a))
				if strings.ContainsAny(e.SubjectTag+e.UncheckedSubjectTag+e.RejectText, "\r\n\x00") {
					t.Fatalf("%s: a line end in a text", a)
				}
				for _, r := range e.Rows(nil) {
					if r.Origin == "" {
						t.Fatalf("%s has no origin", r.Key)
					}
				}
			}
		}
	})
}
