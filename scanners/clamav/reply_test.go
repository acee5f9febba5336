package clamav

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

func TestParseReply(t *testing.T) {
	cases := []struct {
		name, reply string
		kind        answerKind
		signature   string
	}{
		{"OK to a stream", "stream: OK\x00", answerClean, ""},
		{"OK to a descriptor", "fd[10]: OK\x00", answerClean, ""},
		{"OK ended by LF", "stream: OK\n", answerClean, ""},
		{"OK without terminator", "stream: OK", answerGarbage, ""},
		{"OK without prefix", "OK\x00", answerGarbage, ""},
		{"OK with an empty prefix", ": OK\x00", answerGarbage, ""},
		{"OK with more", "stream: OK extra\x00", answerGarbage, ""},
		{"OK in lower case", "stream: ok\x00", answerGarbage, ""},
		{"OK after a blank", "stream:  OK\x00", answerGarbage, ""},
		{"OK and a blank", "stream: OK \x00", answerGarbage, ""},
		{"OK and CR", "stream: OK\r\n", answerGarbage, ""},
		{"OK in a session's form", "1: stream: OK\x00", answerGarbage, ""},
		{"OK twice", "stream: OK\x00stream: OK\x00", answerGarbage, ""},
		{"OK, then more", "stream: OK\x00x", answerGarbage, ""},
		{"OK, then a detection", "stream: OK\x00stream: Eicar FOUND\x00", answerFound, "Eicar"},
		{"NOT OK", "stream: NOT OK\x00", answerGarbage, ""},
		{"nothing", "", answerGarbage, ""},
		{"a terminator alone", "\x00", answerGarbage, ""},
		{"detection", "stream: Eicar-Test-Signature FOUND\x00", answerFound, "Eicar-Test-Signature"},
		{"detection without terminator", "stream: Eicar FOUND", answerFound, "Eicar"},
		{"detection ended by LF", "stream: Eicar FOUND\n", answerFound, "Eicar"},
		{"name with a colon", "stream: Win.Test:A-1 FOUND\x00", answerFound, "Win.Test:A-1"},
		{"name with hash and size", "stream: X(44d88612fea8a8f36de82e1278abb02f:68) FOUND\x00", answerFound, "X(44d88612fea8a8f36de82e1278abb02f:68)"},
		{"name of two words with a colon and blank", "stream: Two: words FOUND\x00", answerFound, "Two: words"},
		{"name that says OK", "stream: OK FOUND\x00", answerFound, "OK"},
		{"name that says FOUND", "stream: A FOUND FOUND\x00", answerFound, "A FOUND"},
		{"name that is empty", "stream:  FOUND\x00", answerFound, "unnamed"},
		{"detection without prefix", "Eicar FOUND\x00", answerFound, "Eicar"},
		{"part of a detection", "stream: Eicar FOU", answerGarbage, ""},
		{"error", "stream: Can't allocate memory ERROR\x00", answerRefused, ""},
		{"error without prefix", "UNKNOWN COMMAND ERROR\x00", answerRefused, ""},
		{"size limit", "INSTREAM size limit exceeded. ERROR\x00", answerTooLarge, ""},
		{"size limit without terminator", "INSTREAM size limit exceeded. ERROR", answerGarbage, ""},
		{"another protocol", "220 mx.example.org ESMTP\r\n", answerGarbage, ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			a := parseReply([]byte(tc.reply))
			if a.kind != tc.kind || a.name != tc.signature {
				t.Errorf("%q: kind %d name %q, want %d %q", tc.reply, a.kind, a.name, tc.kind, tc.signature)
			}
		})
	}
}

func FuzzReply(f *testing.F) {
	for _, s := range []string{"stream: OK\x00", "fd[1]: OK\n", "stream: a: b FOUND\x00", "stream: x ERROR\x00", "OK", "\x00\n", "stream: OK\x00stream: X FOUND\x00"} {
		f.Add([]byte(s))
	}
	exact := regexp.MustCompile(`\A[!-~]{1,64}: OK[\x00\n]+\z`)
	f.Fuzz(func(t *testing.T, b []byte) {
		a := parseReply(b)
		if clean := a.kind == answerClean; clean != exact.Match(b) {
			t.Fatalf("%q: clean is %v", b, clean)
		}
		if a.kind == answerFound && (a.name == "" || !bytes.Contains(b, []byte(" FOUND"))) {
			t.Fatalf("%q: a detection %q of nothing", b, a.name)
		}
		if len(a.text) > 120 {
			t.Fatalf("%q: text of %d bytes", b, len(a.text))
		}
		// Any whole detection ahead of everything else must be seen.
		if line, _, ok := strings.Cut(string(b), "\x00"); ok && strings.HasPrefix(line, "stream: ") && strings.HasSuffix(line, " FOUND") &&
			!strings.Contains(line, "\n") && a.kind != answerFound {
			t.Fatalf("%q: detection lost", b)
		}
	})
}
