package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"sluice/internal/web"
)

// While the file is wrong the daemon goes on, and says so itself: just then it must be
// possible to ask it. Without a daemon the mistake is what there is to tell.
func TestStatusWhileTheFileIsWrong(t *testing.T) {
	d := startDaemon(t, onlyRules)
	good, err := os.ReadFile(d.file)
	if err != nil {
		t.Fatal(err)
	}
	d.configure(t, string(good)+"no_such_key: 1\n")
	d.hup <- os.Interrupt // any signal: the channel is what counts
	d.logged(t, "no_such_key: unknown key")
	var out, complaints bytes.Buffer
	a := &app{streams: streams{out: &out, err: &complaints}, configFile: d.file}
	if err := a.status(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "serving") || !strings.Contains(out.String(), "a later one is wrong") || !strings.Contains(complaints.String(), "sluice check") {
		t.Errorf("%s%s", out.String(), complaints.String())
	}
	d.configure(t, strings.Replace(string(good), "a.sock", "nobody.sock", 1)+"no_such_key: 1\n")
	var e *exitError
	if err := a.status(context.Background(), false); !errors.As(err, &e) || e.code != exitConfig || !strings.Contains(err.Error(), "no_such_key") {
		t.Errorf("without a daemon: %v", err)
	}
}

func TestSignatureAge(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		age  time.Duration
		want string
	}{
		{-2 * time.Hour, "signatures less than an hour old"}, // clocks differ
		{59 * time.Minute, "signatures less than an hour old"},
		{time.Hour, "signatures an hour old"},
		{5*time.Hour + 59*time.Minute, "signatures 5 hours old"},
		{48*time.Hour - time.Second, "signatures 47 hours old"},
		{48 * time.Hour, "signatures 2 days old (does freshclam run?)"},
		{400 * 24 * time.Hour, "signatures 400 days old (does freshclam run?)"},
	} {
		if got := signatureAge(now.Add(-c.age), now); got != c.want {
			t.Errorf("%v: %q, want %q", c.age, got, c.want)
		}
	}
	if got := signatureAge(time.Time{}, now); got != "" {
		t.Errorf("without a date: %q", got)
	}
}

func TestStatusOfScanners(t *testing.T) {
	s := &web.Status{Version: "1", Scanners: []web.Endpoint{
		{Scanner: "clamav", Address: "unix:/a", Up: true, Version: "ClamAV 1.4.6/27000/x", SignaturesDated: time.Now().Add(-5*time.Hour - time.Minute)},
		{Scanner: "clamav", Address: "unix:/b", Up: true, Version: "ClamAV 1.4.6", Detail: "no official signatures"},
		{Scanner: "clamav", Address: "unix:/c", Detail: "connection refused"},
	}}
	var b strings.Builder
	if err := printStatus(&b, s); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"clamav unix:/a      up ClamAV 1.4.6/27000/x, signatures 5 hours old\n",
		"clamav unix:/b      up ClamAV 1.4.6, no official signatures\n",
		"clamav unix:/c      DOWN, connection refused\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
