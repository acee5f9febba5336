package mail

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Message is one message, kept once, exactly as the MTA holds it: header fields,
// an empty line, body, with CRLF line ends as they came. It is written by one
// goroutine (WriteField, EndHeader, Write, Complete or Abort, in this order)
// while any number of others read what has arrived.
//
// After an error of WriteField, EndHeader or Write nothing more can be written: the
// writer calls Abort.
type Message struct {
	spool *Spool
	done  chan struct{} // closed when complete or aborted

	// Only the writer uses these.
	sum      hash.Hash
	failure  error // what made writing impossible
	reserved int64 // bytes of the file that are reserved
	scratch  []byte

	mu sync.RWMutex
	// mu guards what follows. The bytes below size never change; they lie in head
	// while file is nil, else in file.
	size     int64
	head     []byte
	file     *os.File
	onDisk   bool
	state    state
	closed   bool
	more     chan struct{} // made by who waits, closed when anything changes
	digest   [sha256.Size]byte
	header   Header
	headDone bool
	bodyOff  int64 // where the body begins, once headDone
	charged  int64 // memory taken by what was made of the message

	parsing treeResult
}

type state uint8

const (
	arriving state = iota
	complete
	aborted
)

func (m *Message) initDigest() { m.sum = sha256.New() }

// WriteField appends a header field. value is as the milter protocol gives it
// with OptHeaderLeadingSpace: everything after the colon, lines of a folded
// field separated by LF or CRLF (written as CRLF).
func (m *Message) WriteField(name, value string) error {
	value = toCRLF(value)
	raw := append(m.scratch[:0], name...)
	raw = append(raw, ':')
	raw = append(raw, value...)
	raw = append(raw, '\r', '\n')
	m.scratch = raw
	return m.addField(name, value, raw)
}

// addField appends raw, the bytes of a field with all its line ends.
func (m *Message) addField(name, value string, raw []byte) error {
	m.mu.RLock()
	late := m.headDone
	start := m.size
	m.mu.RUnlock()
	if late {
		return errors.New("spool: header field after the end of the header")
	}
	if _, err := m.Write(raw); err != nil {
		return err
	}
	m.mu.Lock()
	m.header.add(Field{Name: name, Value: value, Range: Range{start, start + int64(len(raw))}})
	m.mu.Unlock()
	return nil
}

// EndHeader appends the empty line. From now on Header may be called.
func (m *Message) EndHeader() error {
	if _, err := m.Write([]byte("\r\n")); err != nil {
		return err
	}
	m.endHeader(2)
	return nil
}

// endHeader says that the header is there; the last n bytes are the empty line.
func (m *Message) endHeader(n int64) {
	m.mu.Lock()
	m.header.Range.End = m.size - n
	m.headDone, m.bodyOff = true, m.size
	m.wake()
	m.mu.Unlock()
}

// Write appends bytes. On an error nothing of p has been appended that readers
// see.
func (m *Message) Write(p []byte) (int, error) {
	if m.failure != nil {
		return 0, m.failure
	}
	m.mu.RLock()
	size, open := m.size, m.state == arriving && !m.closed
	m.mu.RUnlock()
	if !open {
		return 0, ErrAborted
	}
	if m.spool.opts.MaxMessage > 0 && int64(len(p)) > m.spool.opts.MaxMessage-size {
		m.failure = ErrTooLarge
		return 0, m.failure
	}
	if len(p) == 0 {
		return 0, nil
	}
	var err error
	if m.file == nil && size+int64(len(p)) <= smallMessage {
		if m.appendToHead(p) {
			return len(p), nil
		}
	}
	if err = m.appendToFile(p, size); err != nil {
		m.failure = storageError(err)
		return 0, m.failure
	}
	return len(p), nil
}

// appendToHead reports false if there is no memory for it.
func (m *Message) appendToHead(p []byte) bool {
	head := m.head
	if len(head)+len(p) > cap(head) {
		if head = m.spool.buffer(len(head) + len(p)); head == nil {
			return false
		}
		head = append(head, m.head...)
	}
	m.sum.Write(p)
	m.mu.Lock()
	// A reader that holds the read lock copies from the old slice; nobody holds
	// it now, so the old buffer can be given back.
	old := m.head
	m.head = append(head, p...)
	m.size += int64(len(p))
	m.wake()
	m.mu.Unlock()
	if cap(old) != cap(head) {
		m.spool.giveBack(old)
	}
	return true
}

// appendToFile writes p at the message's end, size, into the file, having made one
// or moved it to disk if need be.
func (m *Message) appendToFile(p []byte, size int64) error {
	end := size + int64(len(p))
	if m.file == nil {
		if err := m.leaveHead(end); err != nil {
			return err
		}
	}
	if !m.onDisk {
		err := m.growInMemory(end)
		if err == nil {
			_, err = m.file.WriteAt(p, size)
		}
		if err == nil {
			m.advance(p)
			return nil
		}
		// No memory, by our count or the kernel's: the disk may have room.
		if err := m.moveToDisk(size, end); err != nil {
			return err
		}
	}
	if err := m.growOnDisk(end); err != nil {
		return err
	}
	if _, err := m.file.WriteAt(p, size); err != nil {
		return fmt.Errorf("spool: write: %w", err)
	}
	m.advance(p)
	return nil
}

func (m *Message) advance(p []byte) {
	m.sum.Write(p)
	m.mu.Lock()
	m.size += int64(len(p))
	m.wake()
	m.mu.Unlock()
}

// leaveHead makes the message's file, in memory if there is room for end bytes,
// and moves the bytes of the buffer into it.
func (m *Message) leaveHead(end int64) error {
	var f *os.File
	var err error
	onDisk := false
	reserved := roundUp(end)
	if m.spool.memory.reserve(reserved) {
		if f, err = createInMemory(0); err != nil {
			m.spool.memory.release(reserved)
		}
	}
	if f == nil {
		if f, err = m.newDiskFile(reserved); err != nil {
			return err
		}
		onDisk = true
	}
	if _, err := f.WriteAt(m.head, 0); err != nil {
		_ = f.Close() // the write error is the one to tell
		m.roomFor(onDisk).release(reserved)
		return fmt.Errorf("spool: write: %w", err)
	}
	m.mu.Lock()
	old := m.head
	m.head, m.file, m.onDisk, m.reserved = nil, f, onDisk, reserved
	m.mu.Unlock()
	m.spool.giveBack(old)
	return nil
}

// newDiskFile reserves room on disk and makes a file.
func (m *Message) newDiskFile(reserve int64) (*os.File, error) {
	if m.spool.dir == nil || !m.spool.disk.reserve(reserve) {
		return nil, ErrSpoolFull
	}
	f, err := m.spool.createOnDisk()
	if err != nil {
		m.spool.disk.release(reserve)
		return nil, err
	}
	return f, nil
}

func (m *Message) growInMemory(end int64) error { return m.grow(&m.spool.memory, end) }

func (m *Message) growOnDisk(end int64) error { return m.grow(&m.spool.disk, end) }

func (m *Message) grow(r *room, end int64) error {
	if end <= m.reserved {
		return nil
	}
	n := roundUp(end) - m.reserved
	if !r.reserve(n) {
		return ErrSpoolFull
	}
	m.reserved += n
	return nil
}

// moveToDisk copies the first size bytes from memory to a disk file with room
// for end bytes. Readers that are amid the old file come again.
func (m *Message) moveToDisk(size, end int64) error {
	reserved := roundUp(end)
	f, err := m.newDiskFile(reserved)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.NewOffsetWriter(f, 0), io.NewSectionReader(m.file, 0, size)); err != nil {
		_ = f.Close() // the copy's error is the one to tell
		m.spool.disk.release(reserved)
		return fmt.Errorf("spool: move to disk: %w", err)
	}
	m.mu.Lock()
	old, given := m.file, m.reserved
	m.file, m.onDisk, m.reserved = f, true, reserved
	m.mu.Unlock()
	m.spool.memory.release(given)
	if err := old.Close(); err != nil {
		return fmt.Errorf("spool: close memfd: %w", err)
	}
	return nil
}

func (m *Message) roomFor(onDisk bool) *room {
	if onDisk {
		return &m.spool.disk
	}
	return &m.spool.memory
}

func roundUp(n int64) int64 { return (n + fileStep - 1) / fileStep * fileStep }

// Complete says that all bytes have arrived. It fails if something of the
// message could not be written. A header that was not ended is ended here.
func (m *Message) Complete() error {
	if m.failure != nil {
		return m.failure
	}
	if !m.headerDone() {
		if err := m.EndHeader(); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != arriving || m.closed {
		return ErrAborted
	}
	m.sum.Sum(m.digest[:0])
	m.state = complete
	close(m.done)
	m.wake()
	return nil
}

// Abort says that the message will never be complete; readers get ErrAborted.
// It does nothing after Complete.
func (m *Message) Abort() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.abort()
}

func (m *Message) abort() {
	if m.state != arriving {
		return
	}
	m.state = aborted
	close(m.done)
	m.wake()
}

// Close gives back what the message holds, and waits for the parser if Tree
// has started it. Reads after Close fail with ErrAborted; one that is under way
// gets its bytes or ErrAborted. Further calls do nothing.
func (m *Message) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	m.abort()
	m.wake()
	head, file := m.head, m.file
	m.head, m.file = nil, nil
	reserved, r, charged := m.reserved, m.roomFor(m.onDisk), m.charged
	m.charged = 0
	m.mu.Unlock()

	m.parsing.wait()
	m.spool.memory.release(charged)
	m.spool.giveBack(head)
	if file == nil {
		return nil
	}
	r.release(reserved)
	if err := file.Close(); err != nil {
		return fmt.Errorf("spool: close: %w", err)
	}
	return nil
}

// charge counts n bytes made of the message as memory until Close, even past the limit:
// new messages then go to disk the sooner.
func (m *Message) charge(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.charged += n
	m.spool.memory.used.Add(n)
}

// Done is closed once the message is complete or aborted.
func (m *Message) Done() <-chan struct{} { return m.done }

// Size returns the bytes that have arrived so far.
func (m *Message) Size() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.size
}

// Digest returns the SHA-256 of the complete message, zeros before Complete.
func (m *Message) Digest() [32]byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.digest
}

// Header returns the header fields, nil before EndHeader. Read-only.
func (m *Message) Header() *Header {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if !m.headDone {
		return nil
	}
	return &m.header
}

func (m *Message) headerDone() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.headDone
}

// wake tells everyone who waits to look again. mu is held.
func (m *Message) wake() {
	if m.more != nil {
		close(m.more)
		m.more = nil
	}
}

// Reader reads the message from off. A read past what has arrived waits for
// more, until the message is complete (io.EOF), aborted (ErrAborted) or ctx
// ends (its error). Readers are independent of each other. What has arrived of
// an aborted message can't be read any more.
func (m *Message) Reader(ctx context.Context, off int64) io.Reader {
	return &messageReader{m: m, ctx: ctx, off: off}
}

// messageReader holds a context since io.Reader has no room for one.
type messageReader struct {
	m   *Message
	ctx context.Context
	off int64
}

func (r *messageReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := r.m.ReadAt(p, r.off)
		if n > 0 {
			r.off += int64(n)
			return n, nil
		}
		if !errors.Is(err, io.EOF) {
			return 0, err
		}
		if err := r.m.waitBeyond(r.ctx, r.off); err != nil {
			return 0, err
		}
	}
}

// waitBeyond returns nil once the message has a byte at off, io.EOF if it will
// never have one.
func (m *Message) waitBeyond(ctx context.Context, off int64) error {
	for {
		m.mu.Lock()
		switch {
		case m.closed || m.state == aborted:
			m.mu.Unlock()
			return ErrAborted
		case m.size > off:
			m.mu.Unlock()
			return nil
		case m.state == complete:
			m.mu.Unlock()
			return io.EOF
		}
		if m.more == nil {
			m.more = make(chan struct{})
		}
		more := m.more
		m.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ReadAt reads bytes that have arrived (io.ReaderAt); io.EOF means that fewer
// than len(p) have arrived at off so far. It fails with ErrAborted after Abort
// or Close.
func (m *Message) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("spool: negative offset")
	}
	for {
		m.mu.RLock()
		if m.closed || m.state == aborted {
			m.mu.RUnlock()
			return 0, ErrAborted
		}
		if off >= m.size {
			m.mu.RUnlock()
			return 0, io.EOF
		}
		want := p[:min(int64(len(p)), m.size-off)]
		file := m.file
		if file == nil {
			copy(want, m.head[off:])
		}
		m.mu.RUnlock()
		if file != nil {
			n, err := file.ReadAt(want, off)
			if errors.Is(err, os.ErrClosed) {
				continue // moved to disk, or closed, meanwhile
			}
			if err != nil {
				return n, fmt.Errorf("spool: read: %w", err)
			}
		}
		if len(want) < len(p) {
			return len(want), io.EOF
		}
		return len(want), nil
	}
}

// HandOver returns the complete message as a file that can only be read, with
// an offset of its own, at 0, to be passed to another process (clamd's FILDES).
// The caller closes it; it stays valid after the message's Close. A small
// message's file is a copy of at most 64 KiB that Used does not count.
func (m *Message) HandOver() (*os.File, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed || m.state != complete {
		return nil, ErrAborted
	}
	if m.file == nil {
		return sealedCopy(m.head)
	}
	// Opening it anew gives an open file description of its own; a duplicate
	// would share the offset and the right to write.
	conn, err := m.file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("spool: hand over: %w", err)
	}
	fd, openErr := -1, error(nil)
	err = conn.Control(func(own uintptr) {
		fd, openErr = ignoringEINTR(func() (int, error) {
			return unix.Open(fmt.Sprintf("/proc/self/fd/%d", own), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		})
	})
	if err = errors.Join(err, openErr); err != nil {
		return nil, fmt.Errorf("spool: hand over: %w", storageError(err))
	}
	return os.NewFile(uintptr(fd), "sluice-message"), nil
}

// sealedCopy returns a memfd with these bytes that nobody can change.
func sealedCopy(b []byte) (*os.File, error) {
	f, err := createInMemory(unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, storageError(err)
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		_ = f.Close() // the write error is the one to tell
		return nil, fmt.Errorf("spool: hand over: %w", storageError(err))
	}
	seals := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		_ = f.Close() // the first error is the one to tell
		return nil, fmt.Errorf("spool: seal: %w", err)
	}
	return f, nil
}

// toCRLF turns each LF that no CR precedes into CRLF.
func toCRLF(s string) string {
	bare := 0
	for i := range len(s) {
		if s[i] == '\n' && (i == 0 || s[i-1] != '\r') {
			bare++
		}
	}
	if bare == 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + bare)
	for i := range len(s) {
		if s[i] == '\n' && (i == 0 || s[i-1] != '\r') {
			b.WriteByte('\r')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
