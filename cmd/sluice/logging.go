package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"

	"sluice/internal/config"
)

// logLevel turns the configuration's word into a level.
func logLevel(word string) slog.Level {
	switch word {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// logging is where the log goes, in a form and from a level on that can change while it is
// written. Safe for concurrent use.
type logging struct {
	level slog.LevelVar

	mu      sync.Mutex // guards what follows, and writes
	w       io.Writer
	json    bool
	journal bool   // each line gets a priority
	now     string // priority of the line that is being written
	line    []byte // reused
}

// newLogging logs to w; journal: to the systemd journal.
func newLogging(w io.Writer, c config.Log, journal bool) *logging {
	l := &logging{w: w, journal: journal}
	l.set(c)
	return l
}

// set puts another level and form in force, for all loggers that were made of it.
func (l *logging) set(c config.Log) {
	l.level.Set(logLevel(c.Level))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.json = c.Format == "json"
}

func (l *logging) logger() *slog.Logger {
	o := &slog.HandlerOptions{Level: &l.level}
	return slog.New(&logHandler{l: l, text: slog.NewTextHandler(logLine{l}, o), json: slog.NewJSONHandler(logLine{l}, o)})
}

// logHandler makes lines of records, in either form.
type logHandler struct {
	l          *logging
	text, json slog.Handler
}

func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.l.level.Level()
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logHandler{h.l, h.text.WithAttrs(attrs), h.json.WithAttrs(attrs)}
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{h.l, h.text.WithGroup(name), h.json.WithGroup(name)}
}

func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	h.l.now = priority(r.Level)
	if h.l.json {
		return h.json.Handle(ctx, r)
	}
	return h.text.Handle(ctx, r)
}

// logLine takes the lines of slog's handlers, each in one write, while the lock is held.
type logLine struct{ l *logging }

func (t logLine) Write(p []byte) (int, error) {
	l := t.l
	if !l.journal {
		return l.w.Write(p)
	}
	l.line = append(append(l.line[:0], l.now...), p...)
	if _, err := l.w.Write(l.line); err != nil {
		return 0, err
	}
	return len(p), nil
}

// priority is how the journal is told a line's level (sd-daemon(3)).
func priority(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "<3>"
	case level >= slog.LevelWarn:
		return "<4>"
	case level >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}

// isJournal reports whether w is the stream that stream, the variable JOURNAL_STREAM, says
// is the journal's, as device:inode (systemd.exec(5)): the variable alone is inherited by
// programs whose output goes elsewhere.
func isJournal(w io.Writer, stream string) bool {
	f, ok := w.(*os.File)
	if !ok || stream == "" {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
