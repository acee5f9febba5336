package mail

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func setLimits(t *testing.T, s *Spool, l SpoolLimits) {
	t.Helper()
	if err := s.SetLimits(l); err != nil {
		t.Fatal(err)
	}
	if got := s.Limits(); got != l {
		t.Fatalf("limits are %+v, want %+v", got, l)
	}
}

// TestLimitsBelowWhatIsUsed: what has arrived stays, new bytes find no room there.
func TestLimitsBelowWhatIsUsed(t *testing.T) {
	s := newSpool(t, 8*mib, 8*mib)
	text := randomBytes(2*mib, 1)
	m := newMessage(t, s)
	writeAll(t, m, text[:mib], 64<<10)
	if memory, disk := s.Used(); memory < mib || disk != 0 {
		t.Fatalf("%d bytes in memory, %d on disk", memory, disk)
	}

	setLimits(t, s, SpoolLimits{MemoryLimit: 1 << 10, MaxBytes: 8 * mib})
	writeAll(t, m, text[mib:mib+mib/2], 64<<10)
	if memory, disk := s.Used(); memory != 0 || disk < mib+mib/2 {
		t.Errorf("past the new limit of memory: %d bytes in memory, %d on disk; want all on disk", memory, disk)
	}

	setLimits(t, s, SpoolLimits{MemoryLimit: 1 << 10, MaxBytes: mib})
	other := newMessage(t, s)
	if _, err := other.Write(text[:64<<10]); !errors.Is(err, ErrSpoolFull) {
		t.Errorf("with nothing left another message got %v, want ErrSpoolFull", err)
	}
	if !s.Full() {
		t.Error("the spool has more than it may, and is not full")
	}
	if _, err := m.Write(text[mib+mib/2:]); !errors.Is(err, ErrSpoolFull) {
		t.Errorf("past the new limit of the disk: %v, want ErrSpoolFull", err)
	}
	got := make([]byte, mib+mib/2)
	if _, err := m.ReadAt(got, 0); err != nil || !bytes.Equal(got, text[:len(got)]) {
		t.Errorf("what had arrived can't be read any more: %v", err)
	}

	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if s.Full() {
		t.Error("full, and all was given back")
	}
	again := newMessage(t, s)
	writeAll(t, again, text[:mib/2], 64<<10)
}

// TestLimitsRaised: a spool that was full takes messages again.
func TestLimitsRaised(t *testing.T) {
	s := newSpool(t, 64<<10, 64<<10)
	m := newMessage(t, s)
	if _, err := m.Write(make([]byte, mib)); !errors.Is(err, ErrSpoolFull) {
		t.Fatal(err)
	}
	setLimits(t, s, SpoolLimits{MemoryLimit: 2 * mib, MaxBytes: 64 << 10})
	again := newMessage(t, s)
	writeAll(t, again, make([]byte, mib), 64<<10)
}

// TestMaxMessageOfMessagesInFlight: a message keeps the limit that it began under.
func TestMaxMessageOfMessagesInFlight(t *testing.T) {
	s := newSpool(t, mib, 0)
	old := newMessage(t, s)
	writeAll(t, old, make([]byte, 100), 100)
	setLimits(t, s, SpoolLimits{MemoryLimit: mib, MaxMessage: 1000})
	writeAll(t, old, make([]byte, 2000), 500)
	fresh := newMessage(t, s)
	if _, err := fresh.Write(make([]byte, 1001)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a new message past the new limit: %v, want ErrTooLarge", err)
	}
}

// TestDiskForTheFirstTime: the directory is made when a limit first wants it; if it is
// of no use nothing changes.
func TestDiskForTheFirstTime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	s, err := NewSpool(SpoolOptions{Dir: dir, MemoryLimit: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if _, err := os.Stat(dir); err == nil {
		t.Error("a directory was made for nothing")
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	before := s.Limits()
	if err := s.SetLimits(SpoolLimits{MemoryLimit: 1, MaxBytes: mib}); err == nil || s.Limits() != before {
		t.Errorf("a directory that is open to others: %v, limits %+v", err, s.Limits())
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	setLimits(t, s, SpoolLimits{MemoryLimit: 0, MaxBytes: mib})
	m := newMessage(t, s)
	writeAll(t, m, make([]byte, mib/2), 64<<10)
	if _, disk := s.Used(); disk < mib/2 {
		t.Errorf("%d bytes on disk", disk)
	}
}

// TestLimitsUnderTraffic: while limits change, a message is either whole or refused for
// want of room, and what is counted comes out even.
func TestLimitsUnderTraffic(t *testing.T) {
	s := newSpool(t, 2*mib, 2*mib)
	stop := make(chan struct{})
	var changer, writers sync.WaitGroup
	changer.Go(func() {
		limits := []SpoolLimits{{2 * mib, 2 * mib, 0}, {64 << 10, 2 * mib, 0}, {0, mib, 0}, {mib, 0, 0}, {4 * mib, 4 * mib, mib}}
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := s.SetLimits(limits[n%len(limits)]); err != nil {
				t.Error(err)
				return
			}
		}
	})
	var mu sync.Mutex
	whole, refused := 0, 0
	for w := range 4 {
		writers.Go(func() {
			for n := range 60 {
				text := randomBytes(1000+n*7919, uint64(w*100+n))
				m := s.New()
				var err error
				for rest := text; len(rest) > 0 && err == nil; {
					k := min(16<<10, len(rest))
					_, err = m.Write(rest[:k])
					rest = rest[k:]
				}
				if err == nil {
					err = m.Complete()
				}
				mu.Lock()
				switch {
				case err == nil:
					whole++
					got, err := io.ReadAll(m.Reader(context.Background(), 0))
					if err != nil || !bytes.HasPrefix(got, text) {
						t.Errorf("message of %d bytes is not what was written: %v", len(text), err)
					}
				case errors.Is(err, ErrSpoolFull):
					refused++
				default:
					t.Errorf("message of %d bytes: %v", len(text), err)
				}
				mu.Unlock()
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	changer.Wait()
	if whole == 0 {
		t.Errorf("no message was whole, %d were refused", refused)
	}
	setLimits(t, s, SpoolLimits{MemoryLimit: 2 * mib, MaxBytes: 2 * mib})
	writeAll(t, newMessage(t, s), make([]byte, mib), 64<<10)
}
