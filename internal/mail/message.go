package mail

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
	"sync"
)

// Message is one message, kept once, exactly as the MTA holds it: header fields,
// an empty line, body, with CRLF line ends as they came. It is written by one
// goroutine (WriteField, EndHeader, Write, Complete or Abort, in this order)
// while any number of others read what has arrived.
//
// After an error of WriteField, EndHeader or Write nothing more can be written: the
// writer calls Abort.
type Message struct {
	spool    *Spool
	maxBytes int64         // the limit of its size, 0: none
	done     chan struct{} // closed when complete or aborted

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
	end := start + int64(len(raw))
	if end > smallMessage && end <= maxHeaderBytes {
		// The field is kept twice, as bytes of the message and as a string. Up to
		// here that is small change.
		if !m.spool.memory.reserve(int64(len(raw))) {
			m.failure = ErrSpoolFull
			return m.failure
		}
		m.mu.Lock()
		m.charged += int64(len(raw))
		m.mu.Unlock()
	}
	if _, err := m.Write(raw); err != nil {
		return err
	}
	m.mu.Lock()
	m.header.add(Field{Name: name, Value: value, Range: Range{start, end}})
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
	if m.maxBytes > 0 && int64(len(p)) > m.maxBytes-size {
		m.failure = ErrTooLarge
		return 0, m.failure
	}
	if len(p) == 0 {
		return 0, nil
	}
	if m.file == nil && size+int64(len(p)) <= smallMessage && m.appendToHead(p) {
		return len(p), nil
	}
	if err := m.appendToFile(p, size); err != nil {
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
	// Readers copy out of the buffer under the read lock, so once this is done
	// nobody uses the old one.
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
		err := m.grow(&m.spool.memory, end)
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
	if err := m.grow(&m.spool.disk, end); err != nil {
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
	dir := m.spool.dir.Load()
	if dir == nil || !m.spool.disk.reserve(reserve) {
		return nil, ErrSpoolFull
	}
	f, err := createOnDisk(dir)
	if err != nil {
		m.spool.disk.release(reserve)
		return nil, err
	}
	return f, nil
}

// grow reserves room for a file of end bytes.
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
// has started it. The writer must have stopped; readers needn't have: reads
// after Close fail with ErrAborted, one that is under way gets its bytes or
// ErrAborted. Further calls do nothing.
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
