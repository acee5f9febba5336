package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"sluice/internal/config"
)

// TestLogIsSwitched: form and level change for loggers that were made before, and what they
// carry stays.
func TestLogIsSwitched(t *testing.T) {
	var b bytes.Buffer
	l := newLogging(&b, config.Log{Level: "info", Format: "logfmt"}, false)
	log := l.logger()
	session := log.With("session_id", "s1").WithGroup("clamd").With("endpoint", "e1")
	line := func() string {
		t.Helper()
		b.Reset()
		session.Debug("hidden")
		session.Info("hello", "size", 5)
		_, rest, _ := strings.Cut(b.String(), "level") // the time stands before it
		return rest
	}
	const logfmt = "=INFO msg=hello session_id=s1 clamd.endpoint=e1 clamd.size=5\n"
	if got := line(); got != logfmt {
		t.Errorf("logfmt: %q", got)
	}
	l.set(config.Log{Level: "info", Format: "json"})
	const asJSON = `":"INFO","msg":"hello","session_id":"s1","clamd":{"endpoint":"e1","size":5}}` + "\n"
	if got := line(); got != asJSON {
		t.Errorf("json: %q", got)
	}
	l.set(config.Log{Level: "warn", Format: "json"})
	if got := line(); got != "" || session.Enabled(t.Context(), slog.LevelInfo) {
		t.Errorf("below the level: %q", got)
	}
	l.set(config.Log{Level: "debug", Format: "logfmt"})
	if got := line(); !strings.HasPrefix(got, "=DEBUG msg=hidden") || !strings.HasSuffix(got, logfmt) {
		t.Errorf("debug: %q", got)
	}
}

// TestJournalPriorities: each line begins with its level as sd-daemon(3) has it, and has no
// line end inside.
func TestJournalPriorities(t *testing.T) {
	for _, format := range []string{"logfmt", "json"} {
		var b bytes.Buffer
		log := newLogging(&b, config.Log{Level: "debug", Format: format}, true).logger().With("queue_id", "4Q1")
		for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
			log.Log(t.Context(), level, "told", "err", "first line\n<0>second line")
		}
		lines := strings.SplitAfter(b.String(), "\n")
		if len(lines) != 5 || lines[4] != "" {
			t.Fatalf("%s: %d lines, want 4:\n%s", format, len(lines)-1, b.String())
		}
		for i, want := range []string{"<7>", "<6>", "<4>", "<3>"} {
			rest, ok := strings.CutPrefix(lines[i], want)
			if !ok || !strings.HasPrefix(rest, "time=") && !json.Valid([]byte(rest)) {
				t.Errorf("%s: %q, want it to begin with %s", format, lines[i], want)
			}
		}
	}
}

// TestLogUnderTraffic: while the form changes each line is whole, in one form or the other,
// with its own priority.
func TestLogUnderTraffic(t *testing.T) {
	r, w := io.Pipe()
	l := newLogging(w, config.Log{Level: "info"}, true)
	log := l.logger()
	var writers sync.WaitGroup
	for n := range 4 {
		writers.Go(func() {
			own := log.With("session_id", fmt.Sprint(n))
			for range 200 {
				own.Info("fine")
				own.Warn("degraded")
			}
		})
	}
	stop := make(chan struct{})
	var changer sync.WaitGroup
	changer.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				l.set(config.Log{Level: "info", Format: []string{"json", "logfmt"}[n%2]})
			}
		}
	})
	go func() {
		writers.Wait()
		close(stop)
		changer.Wait()
		_ = w.Close() // never fails
	}()
	count := 0
	for lines := bufio.NewScanner(r); lines.Scan(); count++ {
		line := lines.Text()
		level := "INFO"
		if strings.HasPrefix(line, "<4>") {
			level = "WARN"
		}
		rest := line[3:]
		if !strings.Contains(rest, level) || !json.Valid([]byte(rest)) && !strings.HasPrefix(rest, "time=") {
			t.Errorf("line %q", line)
		}
	}
	if count != 4*200*2 {
		t.Errorf("%d lines", count)
	}
}

// TestIsJournal: the variable has to name the stream that is written to.
func TestIsJournal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	info, err := w.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	this := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	for _, c := range []struct {
		name   string
		w      io.Writer
		stream string
		want   bool
	}{
		{"the journal's stream", w, this, true},
		{"no variable", w, "", false},
		{"inherited, and written elsewhere", w, fmt.Sprintf("%d:%d", st.Dev, st.Ino+1), false},
		{"nonsense", w, "x", false},
		{"no file", &bytes.Buffer{}, this, false},
	} {
		if got := isJournal(c.w, c.stream); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
