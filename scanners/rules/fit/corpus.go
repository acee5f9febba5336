package main

import (
	"context"
	"fmt"
	netmail "net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/scanners"
	"sluice/scanners/rules"
)

// letter is one labelled mail, reduced to what the fit needs.
type letter struct {
	path, set      string
	spam           bool
	sender, thread string
	month          string // "2026-02"
	hits           []string
}

func (m *letter) score(scores map[string]float64) float64 {
	s := 0.0
	for _, h := range m.hits {
		s += scores[h]
	}
	return s
}

// gather runs the rules over all labelled mail.
func gather(ctx context.Context, data string, scanner *rules.Scanner) ([]*letter, error) {
	if data == "" {
		data = os.Getenv("SLUICE_DATA")
	}
	if data == "" {
		data = "../shared/data"
	}
	tmp, err := os.MkdirTemp("", "sluice-fit-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	dir := data
	if archive := filepath.Join(data, "spam-dev.tar.xz"); exists(archive) {
		if out, err := exec.CommandContext(ctx, "tar", "-C", tmp, "-xJf", archive).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("unpack %s: %w: %s", archive, err, out)
		}
		dir = tmp
	}
	paths, err := filepath.Glob(filepath.Join(dir, "spam", "*", "*", "*.eml"))
	if err != nil || len(paths) == 0 {
		return nil, fmt.Errorf("no mail below %s/spam", dir)
	}
	spool, err := mail.NewSpool(mail.SpoolOptions{Dir: filepath.Join(tmp, "spool"), MemoryLimit: 256 << 20, MaxBytes: 1 << 30, MaxMessage: 64 << 20})
	if err != nil {
		return nil, err
	}
	defer spool.Close()
	var all []*letter
	for _, p := range paths {
		m, err := examine(ctx, spool, scanner, p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		m.path = strings.TrimPrefix(p, dir+"/")
		all = append(all, m)
	}
	return all, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func examine(ctx context.Context, spool *mail.Spool, scanner *rules.Scanner, path string) (*letter, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	msg := spool.New()
	defer msg.Close()
	if _, err := msg.ReadFrom(f); err != nil {
		return nil, err
	}
	res, err := scanner.Scan(ctx, &scanners.Input{Envelope: &envelope.Envelope{}, Message: msg})
	if err != nil {
		return nil, err
	}
	h := msg.Header()
	kind := filepath.Base(filepath.Dir(path))
	m := &letter{set: filepath.Base(filepath.Dir(filepath.Dir(path))), spam: kind == "spam",
		sender: sender(h), thread: thread(h.Text("Subject")), month: month(h)}
	for _, f := range res.Findings {
		m.hits = append(m.hits, f.Symbol)
	}
	slices.Sort(m.hits)
	return m, nil
}

// sender is the author's address, or the list a mail came over.
func sender(h *mail.Header) string {
	if a, err := netmail.ParseAddress(h.Get("From")); err == nil {
		return strings.ToLower(a.Address)
	}
	return strings.ToLower(h.Get("From"))
}

var replyPrefix = regexp.MustCompile(`(?i)^(?:(?:re|fwd?|aw|sv)(?:\[\d+\])?:\s*|\[[^\]]*\]\s*)+`)

func thread(subject string) string {
	return strings.ToLower(strings.TrimSpace(replyPrefix.ReplaceAllString(subject, "")))
}

// month is when the mail was received, else when it says it was written.
func month(h *mail.Header) string {
	for _, f := range h.All("Received") {
		if i := strings.LastIndexByte(f.Value, ';'); i >= 0 {
			if t, err := netmail.ParseDate((mail.Field{Value: f.Value[i+1:]}).Text()); err == nil {
				return t.UTC().Format("2006-01")
			}
		}
	}
	if t, err := netmail.ParseDate(h.Get("Date")); err == nil {
		return t.UTC().Format("2006-01")
	}
	return time.Time{}.Format("2006-01")
}

// heldOut says which months of each set are kept for the figures.
func (m *letter) heldOut() bool {
	switch m.set {
	case "a":
		return m.month != "2002-09"
	case "b":
		return m.month >= "2026-02"
	case "reports":
		return m.month >= "2014"
	}
	return false
}

// part splits mails into those to fit on and those held out; left counts those
// of the first part that share a sender or a thread with a held-out one.
func part(mails []*letter) (train, test []*letter, left int) {
	senders, threads := map[string]bool{}, map[string]bool{}
	for _, m := range mails {
		if m.heldOut() {
			test = append(test, m)
			senders[m.sender] = true
			threads[m.thread] = true
		}
	}
	for _, m := range mails {
		switch {
		case m.heldOut():
		case senders[m.sender] || m.thread != "" && threads[m.thread]:
			left++
		default:
			train = append(train, m)
		}
	}
	return train, test, left
}
