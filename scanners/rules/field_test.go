package rules

import (
	"bytes"
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/internal/testkit"
	"sluice/internal/verdict"
	"sluice/scanners"
)

// judge runs a scanner over a whole message, as the pool does.
func judge(t testing.TB, s *Scanner, raw []byte, in scanners.Input) scanners.Result {
	t.Helper()
	spool, err := mail.NewSpool(mail.SpoolOptions{Dir: filepath.Join(t.TempDir(), "spool"), MemoryLimit: 64 << 20, MaxBytes: 64 << 20, MaxMessage: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	in.Message = spool.New()
	defer in.Message.Close()
	if _, err := in.Message.ReadFrom(bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	if in.Envelope == nil {
		in.Envelope = &envelope.Envelope{}
	}
	res, err := s.Scan(context.Background(), &in)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func builtin(t testing.TB) *Scanner {
	t.Helper()
	set, _, err := Load(nil, Options{Builtin: true})
	if err != nil {
		t.Fatal(err)
	}
	return New(set, 0)
}

func sum(fs []verdict.Finding) (total verdict.Score, symbols []string) {
	for _, f := range fs {
		if f.Kind == verdict.KindSpam {
			total += f.Score
			symbols = append(symbols, f.Symbol+"="+f.Score.String())
		}
	}
	return total, symbols
}

// fill puts in what mail in the repository must not hold.
func fill(raw []byte) []byte {
	raw = bytes.ReplaceAll(raw, []byte("@GTUBE@"), []byte(testkit.GTUBE()))
	line := "This line of padding says nothing at all to anyone.\r\n"
	return bytes.ReplaceAll(raw, []byte("@pad:1500000@"), []byte(strings.Repeat(line, 1_500_000/len(line))))
}

// TestFieldCases: mail that filters elsewhere judged wrongly. Whatever holds the
// test string is found; all else stays below the mark.
func TestFieldCases(t *testing.T) {
	s := builtin(t)
	paths, err := filepath.Glob("testdata/field/*/*.eml")
	if err != nil || len(paths) < 20 {
		t.Fatalf("%d cases, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimPrefix(path, "testdata/field/"), func(t *testing.T) {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			res := judge(t, s, fill(raw), scanners.Input{})
			total, symbols := sum(res.Findings)
			if bytes.Contains(raw, []byte("@GTUBE@")) {
				if total < 900*verdict.Point {
					t.Errorf("the test string isn't found: %s %v", total, symbols)
				}
			} else if total >= 5*verdict.Point {
				t.Errorf("marked: %s %v", total, symbols)
			}
		})
	}
}

func TestGTUBEInEachEncoding(t *testing.T) {
	s := builtin(t)
	head := "From: Lee <lee@example.org>\r\nTo: kim@example.net\r\nSubject: Win\r\nMIME-Version: 1.0\r\n"
	for name, rest := range map[string]string{
		"plain":            "\r\n" + testkit.GTUBE() + "\r\n",
		"html":             "Content-Type: text/html\r\n\r\n<html><body><p>Dear <b>friend</b>,<div>" + testkit.GTUBE() + "</div></html>\r\n",
		"base64":           "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n" + encode64(testkit.GTUBE()+"\r\n") + "\r\n",
		"quoted-printable": "Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + strings.Replace(testkit.GTUBE(), "GTUBE", "=47T=\r\nUBE", 1) + "\r\n",
		"nested message":   "Content-Type: message/rfc822\r\n\r\nFrom: x@example.org\r\nSubject: y\r\n\r\n" + testkit.GTUBE() + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			res := judge(t, s, []byte(head+rest), scanners.Input{})
			if total, symbols := sum(res.Findings); total < 900*verdict.Point {
				t.Errorf("not found: %s %v", total, symbols)
			}
		})
	}
}

func encode64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// TestWhatTheReaderCouldNotRender: text past the renderer's bounds is the
// reader's finding, which counts also for those who don't use rules, and the
// rules gave a whole answer about the rest.
func TestWhatTheReaderCouldNotRender(t *testing.T) {
	raw := testkit.Sized("long", 9<<20)
	res := judge(t, builtin(t), raw, scanners.Input{})
	if !res.Complete {
		t.Error("no whole answer")
	}
	for _, f := range res.Findings {
		if f.Kind == verdict.KindUnchecked && f.Scanner == verdict.FinderReader {
			return
		}
	}
	t.Errorf("nothing says that text was left out: %+v", res.Findings)
}
