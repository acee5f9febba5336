package milter

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/policy"
)

// splitFrames cuts frames apart, code first.
func splitFrames(t testing.TB, b []byte) []string {
	var frames []string
	for len(b) > 0 {
		if len(b) < 5 || int(binary.BigEndian.Uint32(b)) > len(b)-4 {
			t.Fatalf("not a frame: %q", b)
		}
		n := 4 + int(binary.BigEndian.Uint32(b))
		frames = append(frames, string(b[4:n]))
		b = b[n:]
	}
	return frames
}

func TestEdits(t *testing.T) {
	del := func(name string, i int) policy.FieldChange {
		return policy.FieldChange{Op: policy.DeleteField, Name: name, Index: i}
	}
	for _, tt := range []struct {
		name    string
		fields  []policy.FieldChange
		want    []string
		skipped int
	}{
		{"deletions, the last first", []policy.FieldChange{del("A", 3), del("A", 2), del("A", 1)},
			[]string{"m\x00\x00\x00\x03A\x00\x00", "m\x00\x00\x00\x02A\x00\x00", "m\x00\x00\x00\x01A\x00\x00"}, 0},
		{"deletions, the first first", []policy.FieldChange{del("A", 1), del("a", 1), del("A", 1)},
			[]string{"m\x00\x00\x00\x03A\x00\x00", "m\x00\x00\x00\x02a\x00\x00", "m\x00\x00\x00\x01A\x00\x00"}, 0},
		{"every other", []policy.FieldChange{del("A", 2), del("A", 3)},
			[]string{"m\x00\x00\x00\x04A\x00\x00", "m\x00\x00\x00\x02A\x00\x00"}, 0},
		{"replaced after a deletion", []policy.FieldChange{del("Subject", 1), {Op: policy.ReplaceField, Name: "subject", Index: 1, Value: "x"}},
			[]string{"m\x00\x00\x00\x02subject\x00 x\x00", "m\x00\x00\x00\x01Subject\x00\x00"}, 0},
		{"inserted of the name that is deleted", []policy.FieldChange{{Name: "A", Value: "new", Index: 1}, del("A", 1)},
			[]string{"m\x00\x00\x00\x01A\x00\x00", "i\x00\x00\x00\x01A\x00 new\x00"}, 0},
		{"values that bring lines of their own", []policy.FieldChange{{Name: "A", Value: "a\r\nB: c\n\td\x00e\x7f\n"}},
			[]string{"i\x00\x00\x00\x00A\x00 a\n\tB: c\n\tde\x00"}, 0},
		{"replaced by nothing", []policy.FieldChange{{Op: policy.ReplaceField, Name: "A", Index: 1, Value: "\r\n"}},
			[]string{"m\x00\x00\x00\x01A\x00  \x00"}, 0},
		{"changes that are none", []policy.FieldChange{{Name: "", Value: "x"}, {Name: "A:B", Value: "x"}, {Name: "A\x00", Value: "x"}, del("A", 0), del("A", -1)}, nil, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, skipped := appendEdits(nil, &policy.Disposition{Fields: tt.fields}, agree(postfixOffer))
			if d := cmp.Diff(tt.want, splitFrames(t, b)); d != "" || skipped != tt.skipped {
				t.Errorf("%d left out; frames (-want +got):\n%s", skipped, d)
			}
		})
	}
}

func TestRecipientsKeepTheirBytes(t *testing.T) {
	b, _ := appendEdits(nil, &policy.Disposition{RemoveRecipients: []string{"\xe9t\xe9@example.org", "\"a b\"@example.org", "x\r\n\x00@example.org"}}, agree(postfixOffer))
	want := []string{"-<\xe9t\xe9@example.org>\x00", "-<\"a b\"@example.org>\x00", "-<x@example.org>\x00"}
	if d := cmp.Diff(want, splitFrames(t, b)); d != "" {
		t.Errorf("frames (-want +got):\n%s", d)
	}
}

func TestReplies(t *testing.T) {
	long := strings.Repeat("word ", 200)
	for _, tt := range []struct {
		name  string
		reply policy.Reply
		want  string
	}{
		{"plain", policy.Reply{Code: 550, Enhanced: "5.7.1", Text: "no (id 1)"}, "550 5.7.1 no (id 1)"},
		{"percent", policy.Reply{Code: 550, Enhanced: "5.7.1", Text: "100% of %s %%"}, "550 5.7.1 100%% of %%s %%%%"},
		{"two lines", policy.Reply{Code: 451, Enhanced: "4.3.0", Text: "one\r\ntwo\n"}, "451-4.3.0 one\r\n451 4.3.0 two"},
		{"controls and 8-bit", policy.Reply{Code: 550, Enhanced: "5.7.1", Text: "a\tb\x00c\x1bPrämie\xff"}, "550 5.7.1 a bcPr?mie?"},
		{"class of another", policy.Reply{Code: 451, Enhanced: "5.7.1", Text: "x"}, "451 4.7.1 x"},
		{"no enhanced code", policy.Reply{Code: 550, Text: "x"}, "550 5.0.0 x"},
		{"no code at all", policy.Reply{Code: 550, Enhanced: "5.7.1 x", Text: "x"}, "550 5.0.0 x"},
		{"2xx", policy.Reply{Code: 250, Enhanced: "2.0.0", Text: "x"}, "451 4.3.0 x"},
		{"999", policy.Reply{Code: 999, Text: "x"}, "451 4.3.0 x"},
		{"no text", policy.Reply{Code: 550, Enhanced: "5.7.1"}, "550 5.7.1 "},
		{"empty line inside", policy.Reply{Code: 550, Enhanced: "5.7.1", Text: "a\n\nb"}, "550-5.7.1 a\r\n550-5.7.1 \r\n550 5.7.1 b"},
		{"long", policy.Reply{Code: 550, Enhanced: "5.7.1", Text: long + "(id 1)"},
			"550-5.7.1 " + long[:465] + "\r\n550-5.7.1 " + long[:465] + "\r\n550 5.7.1 " + long[:70] + "(id 1)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := replyText(tt.reply); got != tt.want {
				t.Errorf("got\n%q, want\n%q", got, tt.want)
			}
		})
	}
	for _, text := range []string{strings.Repeat("x", 1<<20) + " (id 1)", strings.Repeat("x\n", 1<<10) + "(id 1)", strings.Repeat("%", 1<<16) + " (id 1)"} {
		got := replyText(policy.Reply{Code: 550, Enhanced: "5.7.1", Text: text})
		checkReply(t, got)
		if !strings.HasSuffix(got, "(id 1)") {
			t.Errorf("the ID is lost: …%q", got[len(got)-60:])
		}
	}
}

// checkReply holds a reply against what both MTAs pass on.
func checkReply(t testing.TB, s string) {
	t.Helper()
	lines := strings.Split(s, "\r\n")
	if len(lines) > maxReplyLines {
		t.Errorf("%d lines", len(lines))
	}
	for i, line := range lines {
		sep := byte('-')
		if i == len(lines)-1 {
			sep = ' '
		}
		ok := len(line) >= 10 && len(line) <= maxReplyLine && (line[0] == '4' || line[0] == '5') && line[3] == sep && line[:3] == lines[0][:3] && line[4] == line[0] && line[5] == '.'
		rest := strings.ReplaceAll(line, "%%", "")
		if !ok || strings.Contains(rest, "%") || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("line %d of %d: %q", i+1, len(lines), line)
		}
	}
}
