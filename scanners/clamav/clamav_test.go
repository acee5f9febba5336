package clamav

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/internal/testkit"
	"sluice/scanners"
)

func spool(t testing.TB) *mail.Spool {
	t.Helper()
	s, err := mail.NewSpool(mail.SpoolOptions{MemoryLimit: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// message returns a complete message with the body.
func message(t testing.TB, s *mail.Spool, body string) *mail.Message {
	t.Helper()
	m := s.New()
	if _, err := m.ReadFrom(strings.NewReader("From: <a@example.org>\r\nSubject: test\r\n\r\n" + body)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func input(m *mail.Message, atOnce bool) *scanners.Input {
	return &scanners.Input{Envelope: &envelope.Envelope{HandsOverAtOnce: atOnce}, Message: m}
}

func scanner(t testing.TB, o Options) *Scanner {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// attachment is a body with s as a base64 attachment.
func attachment(s string) string {
	return "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
		base64.StdEncoding.EncodeToString([]byte(s)) + "\r\n--b--\r\n"
}

func TestRealClamdTellsWhatItFinds(t *testing.T) {
	c := testkit.StartClamd(t, testkit.ClamdOptions{TCP: true})
	sp := spool(t)
	cases := []struct {
		name, body           string
		complete             bool
		symbol, detailPrefix string
	}{
		{"clean", "Hello.\r\n", true, "", ""},
		{"empty", "", true, "", ""},
		{"EICAR", testkit.EICAR(), true, SymbolVirus, testkit.EICARName},
		{"a name with a colon, blanks and brackets", testkit.OddString, true, SymbolVirus, testkit.OddName},
		{"an unwanted program", testkit.PUAString, true, SymbolVirus, testkit.PUAName},
	}
	for _, way := range []string{c.Endpoint(), c.TCPEndpoint()} {
		s := scanner(t, Options{Endpoints: []string{way}})
		for _, tc := range cases {
			t.Run(way[:4]+" "+tc.name, func(t *testing.T) {
				res, err := s.Scan(t.Context(), input(message(t, sp, tc.body), true))
				if err != nil {
					t.Fatal(err)
				}
				check(t, res, tc.complete, tc.symbol, tc.detailPrefix)
			})
		}
	}
}

func check(t *testing.T, res scanners.Result, complete bool, symbol, detailPrefix string) {
	t.Helper()
	if res.Complete != complete {
		t.Errorf("complete = %v, want %v (%+v)", res.Complete, complete, res.Findings)
	}
	if symbol == "" {
		if len(res.Findings) > 0 {
			t.Errorf("findings %+v, want none", res.Findings)
		}
		return
	}
	if len(res.Findings) != 1 || res.Findings[0].Symbol != symbol || !strings.HasPrefix(res.Findings[0].Detail, detailPrefix) {
		t.Errorf("findings %+v, want %s %s", res.Findings, symbol, detailPrefix)
	}
}

func TestVersionAndProbe(t *testing.T) {
	c := testkit.StartClamd(t, testkit.ClamdOptions{})
	s := scanner(t, Options{Endpoints: []string{c.Endpoint()}})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	es := s.Probe(ctx)
	if len(es) != 1 || !es[0].Up || !strings.HasPrefix(es[0].Version, "ClamAV ") {
		t.Fatalf("probe: %+v", es)
	}
	if !es[0].SignaturesDated.IsZero() || es[0].Detail != "no official signatures" {
		t.Errorf("with signatures of our own: %+v", es[0])
	}
	if err := s.Reload(ctx); err != nil {
		t.Error(err)
	}
	stats, err := s.Stats(ctx)
	if err != nil || !strings.Contains(stats[0], "THREADS") {
		t.Errorf("stats %q, %v", stats, err)
	}
}

// encryptedZip returns an archive whose one member says that it is encrypted.
func encryptedZip(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.CreateHeader(&zip.FileHeader{Name: "figures.txt", Method: zip.Store})
	if err == nil {
		_, err = f.Write(bytes.Repeat([]byte("secret "), 20))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	z := b.Bytes()
	// The general purpose flag, bit 0 (APPNOTE 4.4.4), in both headers.
	for magic, at := range map[string]int{"PK\x03\x04": 6, "PK\x01\x02": 8} {
		i := bytes.Index(z, []byte(magic))
		z[i+at] |= 1
	}
	return z
}
