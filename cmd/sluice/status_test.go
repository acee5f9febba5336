package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
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
