package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// splitAll reads all messages, with small reads so that every border is met.
func splitAll(t testing.TB, data string, size int) (messages, names []string) {
	t.Helper()
	s := split(strings.NewReader(data))
	for n := 1; ; n++ {
		r, more := s.next()
		if !more {
			return messages, names
		}
		var b bytes.Buffer
		if _, err := io.CopyBuffer(struct{ io.Writer }{&b}, struct{ io.Reader }{r}, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		messages, names = append(messages, b.String()), append(names, s.name("f", n))
	}
}

const fromA = "From a@example.org Mon Nov 23 09:12:44 2026\n"

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		name, in        string
		messages, names []string
	}{
		{"one message", "Subject: x\n\nbody\n", []string{"Subject: x\n\nbody\n"}, []string{"f"}},
		{"empty", "", []string{""}, []string{"f"}},
		{"mbox of one", fromA + "Subject: x\n\nbody\n\n", []string{"Subject: x\n\nbody\n"}, []string{"f"}},
		{"mbox of two", fromA + "A: 1\n\nx\n\n" + fromA + "B: 2\n\ny\n", []string{"A: 1\n\nx\n", "B: 2\n\ny\n"}, []string{"f#1", "f#2"}},
		{"CRLF", strings.ReplaceAll(fromA+"A: 1\n\nx\n\n"+fromA+"B: 2\n\ny\n", "\n", "\r\n"), []string{"A: 1\r\n\r\nx\r\n", "B: 2\r\n\r\ny\r\n"}, []string{"f#1", "f#2"}},
		{"quoted line", fromA + "A: 1\n\n>From me\n>>From you\n> From\n", []string{"A: 1\n\nFrom me\n>From you\n> From\n"}, []string{"f"}},
		{"no empty line before", fromA + "A: 1\n\nx\n" + fromA, []string{"A: 1\n\nx\n" + fromA}, []string{"f"}},
		{"text that begins with From", fromA + "A: 1\n\nx\n\nFrom here on\n", []string{"A: 1\n\nx\n\nFrom here on\n"}, []string{"f"}},
		{"empty lines stay", fromA + "A: 1\n\nx\n\n\n\n" + fromA + "B: 2\n", []string{"A: 1\n\nx\n\n\n", "B: 2\n"}, []string{"f#1", "f#2"}},
		{"no body", fromA + "A: 1\n\n" + fromA + "B: 2\n", []string{"A: 1\n", "B: 2\n"}, []string{"f#1", "f#2"}},
		{"From line alone", fromA, []string{""}, []string{"f"}},
		{"long line", fromA + "A: 1\n\n" + strings.Repeat("x", 200_000) + "\n", []string{"A: 1\n\n" + strings.Repeat("x", 200_000) + "\n"}, []string{"f"}},
		{"not an mbox", "Fro: x\n\n" + fromA, []string{"Fro: x\n\n" + fromA}, []string{"f"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, size := range []int{1, 7, 1 << 20} {
				messages, names := splitAll(t, c.in, size)
				if d := cmp.Diff(c.messages, messages) + cmp.Diff(c.names, names); d != "" {
					t.Errorf("reading %d bytes at a time: %s", size, d)
				}
			}
		})
	}
}

// FuzzSplit: an mbox loses nothing but its From_ lines, one ">" of quoted ones and one empty
// line before each and at the end.
func FuzzSplit(f *testing.F) {
	f.Add("Subject: x\n\nbody\n")
	f.Add(fromA + "A: 1\n\nx\n\n" + fromA + "B: 2\n\ny\n")
	f.Add(fromA + ">From x\n\n\n\r\n" + fromA)
	f.Fuzz(func(t *testing.T, in string) {
		messages, _ := splitAll(t, in, 512)
		if !strings.HasPrefix(in, "From ") {
			if len(messages) != 1 || messages[0] != in {
				t.Fatalf("a single message was changed: %q", messages)
			}
			return
		}
		kept := 0
		for _, m := range messages {
			kept += len(m)
		}
		lost := 0
		for line := range strings.Lines(in) {
			switch {
			case strings.HasPrefix(line, "From "):
				lost += len(line)
			case strings.HasPrefix(line, ">") && strings.HasPrefix(strings.TrimLeft(line, ">"), "From "):
				lost++
			}
		}
		if kept > len(in) || kept+lost+2*(len(messages)+1) < len(in) {
			t.Fatalf("%d of %d bytes kept, at most %d may be lost", kept, len(in), lost+2*(len(messages)+1))
		}
	})
}

func TestPeekLine(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	for in, want := range map[string]string{"": "", "a": "a", "a\nb": "a\n", "a\r\nb": "a\r\n", long + "\n": long[:4096]} {
		head, r := peekLine(strings.NewReader(in))
		all, err := io.ReadAll(r)
		if head != want || string(all) != in || err != nil {
			t.Errorf("%.20q: head of %d bytes, all of %d, %v", in, len(head), len(all), err)
		}
	}
}
