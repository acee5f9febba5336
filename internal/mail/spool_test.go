package mail

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

func newSpool(t testing.TB, memory, disk int64) *Spool {
	t.Helper()
	s, err := NewSpool(SpoolOptions{Dir: filepath.Join(t.TempDir(), "spool"), MemoryLimit: memory, MaxBytes: disk})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if m, d := s.Used(); m != 0 || d != 0 {
			t.Errorf("after the test the spool counts %d bytes in memory, %d on disk", m, d)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newMessage(t testing.TB, s *Spool) *Message {
	t.Helper()
	m := s.New()
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// randomBytes are the same for the same seed.
func randomBytes(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(b) // ChaCha8 never fails
	return b
}

func writeAll(t testing.TB, m *Message, p []byte, piece int) {
	t.Helper()
	for len(p) > 0 {
		n := min(piece, len(p))
		if _, err := m.Write(p[:n]); err != nil {
			t.Fatalf("write: %v", err)
		}
		p = p[n:]
	}
}

func TestMessageKeepsBytesWhereverTheyLie(t *testing.T) {
	for _, c := range []struct {
		name         string
		memory, disk int64
		size, piece  int
	}{
		{"small", 64 * mib, 64 * mib, 5000, 1000},
		{"grows through all buffers", 64 * mib, 0, smallMessage, 777},
		{"one byte past the buffer", 64 * mib, 0, smallMessage + 1, 4096},
		{"large in memory", 64 * mib, 0, 5 * mib, 65535},
		{"no memory at all", 0, 64 * mib, 3 * mib, 65535},
		{"no memory, small", 0, 64 * mib, 10, 10},
		{"moves to disk", mib, 64 * mib, 3 * mib, 65535},
		{"buffer can't grow", 20 << 10, 64 * mib, 60_000, 1000},
		{"one write of all", 64 * mib, 0, 2 * mib, 2 * mib},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSpool(t, c.memory, c.disk)
			m := newMessage(t, s)
			if err := m.WriteField("Subject", " a\n b"); err != nil {
				t.Fatal(err)
			}
			if err := m.EndHeader(); err != nil {
				t.Fatal(err)
			}
			body := randomBytes(c.size, 1)
			writeAll(t, m, body, c.piece)
			if err := m.Complete(); err != nil {
				t.Fatal(err)
			}
			want := append([]byte("Subject: a\r\n b\r\n\r\n"), body...)
			for _, off := range []int{0, 5, len(want) / 2, len(want) - 1, len(want)} {
				got, err := io.ReadAll(m.Reader(t.Context(), int64(off)))
				if err != nil || !bytes.Equal(got, want[off:]) {
					t.Fatalf("from %d: %d bytes, %v; want %d", off, len(got), err, len(want)-off)
				}
			}
			if m.Digest() != sha256.Sum256(want) || m.Size() != int64(len(want)) {
				t.Error("digest or size is wrong")
			}
			f, err := m.HandOver()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(f)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("handed over %d bytes, %v; want %d", len(got), err, len(want))
			}
			if _, err := f.WriteAt([]byte("x"), 0); err == nil {
				t.Error("what was handed over can be written to")
			}
		})
	}
}

func TestHandOversHaveOffsetsOfTheirOwn(t *testing.T) {
	for _, size := range []int{100, mib} {
		m := newMessage(t, newSpool(t, 8*mib, 0))
		writeAll(t, m, randomBytes(size, 1), 65535)
		if err := m.Complete(); err != nil {
			t.Fatal(err)
		}
		a, err := m.HandOver()
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		b, err := m.HandOver()
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if _, err := io.CopyN(io.Discard, a, 50); err != nil {
			t.Fatal(err)
		}
		if off, err := b.Seek(0, io.SeekCurrent); off != 0 || err != nil {
			t.Errorf("size %d: the second file is at %d, %v", size, off, err)
		}
	}
}

func TestReadersSideBySideWhileItArrives(t *testing.T) {
	for _, c := range []struct {
		name         string
		memory, disk int64
		size         int
	}{
		{"buffer", 8 * mib, 0, 60_000},
		{"buffer then memfd", 8 * mib, 0, mib},
		{"buffer then memfd then disk", 512 << 10, 8 * mib, 2 * mib},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSpool(t, c.memory, c.disk)
			m := newMessage(t, s)
			want := randomBytes(c.size, 2)
			var readers sync.WaitGroup
			for i := range 16 {
				readers.Go(func() {
					off := i * c.size / 16
					got, err := io.ReadAll(m.Reader(t.Context(), int64(off)))
					if err != nil || !bytes.Equal(got, want[off:]) {
						t.Errorf("reader from %d: %d bytes, %v", off, len(got), err)
					}
				})
			}
			for p := want; len(p) > 0; {
				n := min(len(p), 1+rand.IntN(20_000))
				if _, err := m.Write(p[:n]); err != nil {
					t.Fatal(err)
				}
				p = p[n:]
			}
			if err := m.endForTest(); err != nil {
				t.Fatal(err)
			}
			readers.Wait()
		})
	}
}

// endForTest completes a message that was written without a header.
func (m *Message) endForTest() error {
	m.endHeader(0)
	return m.Complete()
}

func TestReaderEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(m *Message, cancel func()) error
		want error
	}{
		{"complete", func(m *Message, _ func()) error { return m.endForTest() }, io.EOF},
		{"aborted", func(m *Message, _ func()) error { m.Abort(); return nil }, ErrAborted},
		{"closed", func(m *Message, _ func()) error { return m.Close() }, ErrAborted},
		{"cancelled", func(_ *Message, cancel func()) error { cancel(); return nil }, context.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMessage(t, newSpool(t, mib, 0))
			writeAll(t, m, []byte("abc"), 3)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r := m.Reader(ctx, 3)
			got := make(chan error)
			go func() {
				_, err := r.Read(make([]byte, 1))
				got <- err
			}()
			if err := c.end(m, cancel); err != nil {
				t.Fatal(err)
			}
			if err := <-got; !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestCloseWhileRead(t *testing.T) {
	for _, size := range []int{5000, mib} {
		for round := range 50 {
			s := newSpool(t, 8*mib, 0)
			m := s.New()
			want := randomBytes(size, uint64(round))
			writeAll(t, m, want, 65535)
			if err := m.endForTest(); err != nil {
				t.Fatal(err)
			}
			var readers sync.WaitGroup
			for range 4 {
				readers.Go(func() {
					got, err := io.ReadAll(m.Reader(t.Context(), 0))
					if err != nil && !errors.Is(err, ErrAborted) {
						t.Errorf("unexpected error %v", err)
					}
					if !bytes.HasPrefix(want, got) {
						t.Error("a reader saw bytes that are not the message's")
					}
				})
			}
			// The buffer that Close gives back is used again at once.
			readers.Go(func() {
				if err := m.Close(); err != nil {
					t.Error(err)
				}
				other := s.New()
				writeAll(t, other, randomBytes(size, 9999), 65535)
				_ = other.Close()
			})
			readers.Wait()
			if err := m.Close(); err != nil {
				t.Errorf("second Close: %v", err)
			}
		}
	}
}

// A large message lies in its file alone: writing, splitting and reading it takes
// buffers, not its size.
func TestLargeMessageIsNotCopied(t *testing.T) {
	s := newSpool(t, 64*mib, 0)
	m := newMessage(t, s)
	chunk := bytes.Repeat([]byte("QUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJD\r\n"), 1000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, f := range [][2]string{{"Content-Type", " application/octet-stream"}, {"Content-Transfer-Encoding", " base64"}} {
		if err := m.WriteField(f[0], f[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.EndHeader(); err != nil {
		t.Fatal(err)
	}
	for m.Size() < 25*mib {
		if _, err := m.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Complete(); err != nil {
		t.Fatal(err)
	}
	tree, err := m.Tree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Rendered(t.Context()); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, tree.Root.Open(t.Context()))
	if err != nil || n < 18*mib {
		t.Fatalf("%d bytes, %v", n, err)
	}
	f, err := m.HandOver()
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > mib {
		t.Errorf("%d bytes were allocated for a message of %d", used, m.Size())
	}
}

func TestSpoolFull(t *testing.T) {
	s := newSpool(t, 100<<10, 256<<10)
	if s.Full() {
		t.Fatal("an empty spool is full")
	}
	m := newMessage(t, s)
	var err error
	for range 100 {
		if _, err = m.Write(make([]byte, 10_000)); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrSpoolFull) {
		t.Fatalf("got %v", err)
	}
	if _, err := m.Write([]byte("x")); !errors.Is(err, ErrSpoolFull) {
		t.Errorf("after it was full: %v", err)
	}
	if err := m.Complete(); !errors.Is(err, ErrSpoolFull) {
		t.Errorf("Complete: %v", err)
	}
	other := newMessage(t, s)
	writeAll(t, other, make([]byte, smallMessage), smallMessage)
	if !s.Full() {
		mem, disk := s.Used()
		t.Errorf("not full with %d and %d used", mem, disk)
	}
	_ = m.Close()
	if s.Full() {
		t.Error("full after Close")
	}
}

func TestMessageTooLarge(t *testing.T) {
	s, err := NewSpool(SpoolOptions{MemoryLimit: mib, MaxMessage: 1000})
	if err != nil {
		t.Fatal(err)
	}
	m := s.New()
	defer m.Close()
	if _, err := m.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Write(make([]byte, 1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestDiskFull(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		t.Fatalf("mount a small tmpfs (tests run as root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s, err := NewSpool(SpoolOptions{Dir: dir, MemoryLimit: 0, MaxBytes: 100 * mib})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m := s.New()
	for range 100 {
		if _, err = m.Write(make([]byte, 65_535)); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrSpoolFull) || !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("got %v", err)
	}
	if !s.Full() {
		t.Error("the file system has no room, but the spool is not full")
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if s.Full() {
		t.Error("full after Close")
	}
	if mem, disk := s.Used(); mem != 0 || disk != 0 {
		t.Errorf("%d, %d left", mem, disk)
	}
}

// The disk has no room for a message that has to leave memory.
func TestDiskFullWhileMoving(t *testing.T) {
	s := newSpool(t, 512<<10, 256<<10)
	m := newMessage(t, s)
	want := randomBytes(400<<10, 5)
	writeAll(t, m, want, 65_535)
	if _, err := m.Write(make([]byte, 200<<10)); !errors.Is(err, ErrSpoolFull) {
		t.Fatalf("got %v", err)
	}
	got := make([]byte, len(want))
	if _, err := m.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what had arrived can't be read: %v", err)
	}
	if m.Size() != int64(len(want)) {
		t.Errorf("size %d", m.Size())
	}
}

// Whatever is done to messages in whatever order, the counters end at zero.
func TestRoomGoesBackExactly(t *testing.T) {
	s := newSpool(t, mib, 2*mib)
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			for range 100 {
				m := s.New()
				for range r.IntN(20) {
					if _, err := m.Write(make([]byte, r.IntN(1<<r.IntN(18)))); err != nil {
						if !errors.Is(err, ErrSpoolFull) {
							t.Error(err)
						}
						break
					}
				}
				if r.IntN(2) == 0 {
					if err := m.Complete(); err == nil {
						if f, err := m.HandOver(); err != nil {
							t.Error(err)
						} else {
							_ = f.Close()
						}
					}
				}
				_ = m.Close()
				_ = m.Close()
			}
		})
	}
	all.Wait() // newSpool's cleanup looks at the counters
}

func TestSpoolDirectory(t *testing.T) {
	base := t.TempDir()
	link := filepath.Join(base, "link")
	open := filepath.Join(base, "open")
	foreign := filepath.Join(base, "foreign")
	for _, d := range []string{open, foreign} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(open, link), os.Chmod(open, 0o755), os.Chown(foreign, 12345, -1)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, dir, want string }{
		{"symbolic link", link, "symbolic link"},
		{"open to others", open, "chmod 0700"},
		{"another user's", foreign, "another user"},
		{"none", "", "no directory"},
		{"a file", "/dev/null", "directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := NewSpool(SpoolOptions{Dir: c.dir, MaxBytes: mib})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want …%s…", err, c.want)
			}
		})
	}

	made := filepath.Join(base, "a", "b")
	if err := os.MkdirAll(made, 0o700); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(made, namePrefix+"left")
	other := filepath.Join(made, "other")
	for _, f := range []string{left, other} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := NewSpool(SpoolOptions{Dir: made, MaxBytes: mib})
	if err != nil {
		t.Fatal(err)
	}
	m := s.New()
	writeAll(t, m, make([]byte, 100_000), 1000)
	names, err := os.ReadDir(made)
	if err != nil || fmt.Sprint(names) != "[- other]" {
		t.Errorf("in the directory: %v, %v", names, err)
	}
	if err := errors.Join(m.Close(), s.Close()); err != nil {
		t.Error(err)
	}
}

func TestHeaderFields(t *testing.T) {
	m := newMessage(t, newSpool(t, mib, 0))
	if m.Header() != nil {
		t.Error("a header before EndHeader")
	}
	for _, f := range [][2]string{
		{"Received", " from a\n\tby b"}, {"SUBJECT", " =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n =?iso-8859-1?q?_f=FCr?= dich"},
		{"received", " from c"}, {"X-Empty", ""}, {"X-Raw", "no blank"},
	} {
		if err := m.WriteField(f[0], f[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.EndHeader(); err != nil {
		t.Fatal(err)
	}
	if err := m.WriteField("Late", " x"); err == nil {
		t.Error("a field after the header's end")
	}
	writeAll(t, m, []byte("body"), 4)
	h := m.Header()
	if got := h.Text("subject"); got != "Grüße für dich" {
		t.Errorf("Text: %q", got)
	}
	if got := h.Get("Received"); got != "from a\tby b" {
		t.Errorf("Get: %q", got)
	}
	if got := h.All("RECEIVED"); len(got) != 2 || got[1].Value != " from c" {
		t.Errorf("All: %v", got)
	}
	if h.Get("absent") != "" || h.Has("absent") || !h.Has("x-empty") {
		t.Error("absent and empty are confused")
	}
	for _, f := range h.Fields {
		raw := make([]byte, f.Range.End-f.Range.Start)
		if _, err := m.ReadAt(raw, f.Range.Start); err != nil {
			t.Fatal(err)
		}
		if string(raw) != f.Name+":"+f.Value+"\r\n" {
			t.Errorf("range of %s holds %q", f.Name, raw)
		}
	}
	if err := m.Complete(); err != nil {
		t.Fatal(err)
	}
}

func TestHeaderIsBounded(t *testing.T) {
	m := newMessage(t, newSpool(t, 64*mib, 0))
	for range 40 {
		if err := m.WriteField("X", strings.Repeat("y", 50_000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.endForTest(); err != nil {
		t.Fatal(err)
	}
	h := m.Header()
	if !h.Truncated || len(h.Fields) != 20 || m.Size() != h.Range.End || h.Range.End < 40*50_000 {
		t.Errorf("truncated %v, %d fields, ends at %d of %d", h.Truncated, len(h.Fields), h.Range.End, m.Size())
	}
}

// A long header is counted twice, for it is kept twice.
func TestLongHeaderTakesMemory(t *testing.T) {
	s := newSpool(t, 512<<10, 64*mib)
	m := newMessage(t, s)
	var err error
	for range 20 {
		if err = m.WriteField("X", strings.Repeat("y", 50_000)); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrSpoolFull) {
		t.Errorf("got %v", err)
	}
}

func TestReadFrom(t *testing.T) {
	for _, c := range []struct{ name, in, want, fields string }{
		{"crlf", "A: 1\r\nB: 2\r\n 3\r\n\r\nbody\r\n", "A: 1\r\nB: 2\r\n 3\r\n\r\nbody\r\n", "A B"},
		{"lf becomes crlf", "A: 1\n 2\n\nbody\nx", "A: 1\r\n 2\r\n\r\nbody\r\nx", "A"},
		{"crlf file keeps lone lf and cr", "A: 1\r\n\r\nx\ny\rz\x00", "A: 1\r\n\r\nx\ny\rz\x00", "A"},
		{"mbox line", "From lee@example.org Mon\nA: 1\n\nb\n", "A: 1\r\n\r\nb\r\n", "A"},
		{"field From with a blank", "From : lee@example.org\n\nb\n", "From : lee@example.org\r\n\r\nb\r\n", "From"},
		{"blank fold continues", "A: 1,\n \n\t2\nB: 3\n\nb", "A: 1,\r\n \r\n\t2\r\nB: 3\r\n\r\nb", "A B"},
		{"a line that is no field", "A: 1\nnot a field\nB: 2\n", "A: 1\r\n\r\nnot a field\r\nB: 2\r\n", "A"},
		{"header only", "A: 1\n", "A: 1\r\n\r\n", "A"},
		{"no last line end", "A: 1", "A: 1\r\n\r\n", "A"},
		{"blank before the colon", "A : 1\n\n", "A : 1\r\n\r\n", "A"},
		{"nothing", "", "\r\n", ""},
		{"body only", "\nbody\n", "\r\nbody\r\n", ""},
		{"fold first", " x\nA: 1\n\n", "\r\n x\r\nA: 1\r\n\r\n", ""},
		{"overlong field", "A: " + strings.Repeat("x", 3*smallMessage) + "\nB: 1\n\nb", "A: " + strings.Repeat("x", 3*smallMessage) + "\r\nB: 1\r\n\r\nb", "A B"},
		{"cr at a buffer's end", "A: 1\n\n" + strings.Repeat("x", smallMessage-6-1) + "\r\ny\n", "A: 1\r\n\r\n" + strings.Repeat("x", smallMessage-6-1) + "\r\ny\r\n", "A"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMessage(t, newSpool(t, mib, 0))
			n, err := m.ReadFrom(strings.NewReader(c.in))
			if err != nil || n != int64(len(c.in)) {
				t.Fatalf("%d, %v", n, err)
			}
			got, err := io.ReadAll(m.Reader(t.Context(), 0))
			if err != nil || string(got) != c.want {
				t.Errorf("got %.200q, %v, want %.200q", got, err, c.want)
			}
			var names []string
			for _, f := range m.Header().Fields {
				names = append(names, f.Name)
			}
			if strings.Join(names, " ") != c.fields {
				t.Errorf("fields %q, want %q", names, c.fields)
			}
		})
	}
}

// What ReadFrom made is read the same again.
func FuzzReadFrom(f *testing.F) {
	for _, s := range []string{"From x\nA: 1\n b\n\nc\n", "A: 1\r\n\nb\n", "A\n", "\n", ">From : x\n", "A: 1\r\n \r\nB:\rx\n\r\n\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		s := newSpool(t, 64*mib, 0)
		read := func(p []byte) (*Message, []byte) {
			m := newMessage(t, s)
			n, err := m.ReadFrom(bytes.NewReader(p))
			if err != nil || n != int64(len(p)) {
				t.Fatalf("%d of %d bytes, %v", n, len(p), err)
			}
			got, err := io.ReadAll(m.Reader(t.Context(), 0))
			if err != nil {
				t.Fatal(err)
			}
			return m, got
		}
		first, once := read(in)
		if lost := len(in) - len(once); lost > 0 && !bytes.HasPrefix(in, []byte("From ")) && !bytes.HasPrefix(in, []byte(">From ")) {
			t.Fatalf("%d bytes are lost", lost)
		}
		second, twice := read(once)
		if !bytes.Equal(once, twice) {
			t.Fatalf("once %q, twice %q", once, twice)
		}
		if a, b := first.Header(), second.Header(); fmt.Sprint(a.Fields) != fmt.Sprint(b.Fields) || a.Range != b.Range {
			t.Fatalf("fields %v, then %v", a, b)
		}
	})
}

func TestReadFromTrouble(t *testing.T) {
	m := newMessage(t, newSpool(t, mib, 0))
	broken := errors.New("broken")
	if _, err := m.ReadFrom(io.MultiReader(strings.NewReader("A: 1\n\nxx"), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	<-m.Done()
	if _, err := m.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrAborted) {
		t.Errorf("got %v", err)
	}
}

// reportCPU adds the processor time of the whole process to a benchmark's
// figures: on a shared machine the wall clock says little. Call what it returns at the end.
func reportCPU(b *testing.B) func() {
	b.Helper()
	cpu := func() float64 {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return float64(u.Utime.Nano() + u.Stime.Nano())
	}
	start := cpu()
	return func() { b.ReportMetric((cpu()-start)/float64(b.N), "cpu-ns/op") }
}

func BenchmarkSpool(b *testing.B) {
	for _, size := range []int{5 << 10, mib, 25 * mib} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s, err := NewSpool(SpoolOptions{MemoryLimit: 128 * mib})
			if err != nil {
				b.Fatal(err)
			}
			chunk := make([]byte, 65535)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			defer reportCPU(b)()
			for b.Loop() {
				m := s.New()
				for range 15 {
					if err := m.WriteField("Received", " from mail.example.org by mx.example.net"); err != nil {
						b.Fatal(err)
					}
				}
				if err := m.EndHeader(); err != nil {
					b.Fatal(err)
				}
				for left := size; left > 0; left -= len(chunk) {
					if _, err := m.Write(chunk[:min(left, len(chunk))]); err != nil {
						b.Fatal(err)
					}
				}
				if err := m.Complete(); err != nil {
					b.Fatal(err)
				}
				if err := m.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkHandOver(b *testing.B) {
	for _, size := range []int{5 << 10, mib} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			m := newMessage(b, newSpool(b, 8*mib, 0))
			writeAll(b, m, make([]byte, size), 65535)
			if err := m.endForTest(); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			defer reportCPU(b)()
			for b.Loop() {
				f, err := m.HandOver()
				if err != nil {
					b.Fatal(err)
				}
				_ = f.Close()
			}
		})
	}
}
