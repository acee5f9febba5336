package mail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

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
