package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// Command says how a server is started and when it is ready.
type Command struct {
	// Path and Args are the program and its arguments (without its name), Env its
	// whole environment (nil: ours), Dir its working directory.
	Path string
	Args []string
	Env  []string
	Dir  string
	// Log is the file that takes its standard output and error, made if missing.
	Log string
	// Ready is asked again and again until it returns nil; nil: ready at once.
	Ready func(context.Context) error
	// ReadyWithin bounds that; 0 means 20 s.
	ReadyWithin time.Duration
	// StopSignal is what Stop sends; 0 means SIGTERM.
	StopSignal syscall.Signal
	// StopWithin is how long Stop waits before it kills; 0 means 20 s.
	StopWithin time.Duration
}

// Process is a running server, leader of a session and process group of its own.
// Its methods are safe for concurrent use.
type Process struct {
	command Command
	pid     int
	done    chan struct{}
	err     error // of Wait; read after done
}

// StartProcess starts a server and waits until it is ready. A server that ends or
// isn't ready in time is an error that bears the end of its log, and is not left
// behind. The server is told to end if this program dies.
func StartProcess(ctx context.Context, c Command) (*Process, error) {
	log, err := os.OpenFile(c.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &Process{command: c, done: make(chan struct{})}
	started := make(chan error)
	go p.run(log, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	if c.Ready == nil {
		return p, nil
	}
	ctx, cancel := context.WithTimeout(ctx, orDefault(c.ReadyWithin, 20*time.Second))
	defer cancel()
	if err := Poll(ctx, p.Done(), c.Ready); err != nil {
		if errors.Is(err, errEnded) {
			<-p.done
			err = fmt.Errorf("%w (%v)", err, p.err)
		}
		_ = p.Stop() // the first error is the one that tells
		return nil, fmt.Errorf("start %s: %w\n%s", c.Path, err, p.LogTail(4096))
	}
	return p, nil
}

// run starts the process and its guard and waits for the process.
func (p *Process) run(log *os.File, started chan<- error) {
	defer close(p.done)
	cmd := exec.Command(p.command.Path, p.command.Args...)
	cmd.Env, cmd.Dir = p.command.Env, p.command.Dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if p.err = cmd.Start(); p.err != nil {
		started <- p.err
		return
	}
	p.pid = cmd.Process.Pid
	release, err := guard(p.pid)
	if err != nil {
		_ = syscall.Kill(-p.pid, syscall.SIGKILL) // it was just started
	}
	started <- err
	p.err = cmd.Wait()
	if err == nil {
		release()
	}
}

// guard starts a shell that ends the group when this program is gone, however it
// ends: the kernel's own signal at a parent's death (PR_SET_PDEATHSIG) is lost when
// a server changes its user, as master(8) does. release sends the shell away.
func guard(pgid int) (release func(), err error) {
	sh := exec.Command("/bin/sh", "-c", `read -r nothing; kill -s TERM -- "-$0"; sleep 10; kill -s KILL -- "-$0"`, strconv.Itoa(pgid))
	sh.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := sh.StdinPipe() // closed by our death at the latest
	if err != nil {
		return nil, err
	}
	if err := sh.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = sh.Process.Kill() // before the pipe is closed, lest it do its work
		_ = sh.Wait()         // "signal: killed"
		_ = pipe.Close()      // Wait has closed it
	}, nil
}

var errEnded = errors.New("the server ended")

// Poll calls f until it returns nil, ctx ends or ended is closed (nil: never),
// and returns the last error of f in the latter cases.
func Poll(ctx context.Context, ended <-chan struct{}, f func(context.Context) error) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("%w before it was ready: %w", errEnded, err)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(wait):
		}
	}
}

// PID returns the process's ID, which is also that of its group and session.
func (p *Process) PID() int { return p.pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the process ended: nil if it exited 0 or is still running.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Signal sends a signal to the process alone, nothing if it has ended.
func (p *Process) Signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		return os.ErrProcessDone
	default:
		return syscall.Kill(p.pid, sig)
	}
}

// Kill ends the process and its group at once (SIGKILL) and waits for it.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.pid, syscall.SIGKILL) // ESRCH: it ended by itself
	<-p.done
}

// Stop asks the process to end, waits, and kills it and what is left of its
// group after StopWithin, which is an error. To stop twice does no harm.
func (p *Process) Stop() error {
	sig := p.command.StopSignal
	if sig == 0 {
		sig = syscall.SIGTERM
	}
	if err := p.Signal(sig); errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(orDefault(p.command.StopWithin, 20*time.Second)):
		p.Kill()
		return fmt.Errorf("stop %s: still running after %v, killed", p.command.Path, orDefault(p.command.StopWithin, 20*time.Second))
	}
}

// LogTail returns up to n bytes of the end of the log.
func (p *Process) LogTail(n int64) string { return tail(p.command.Log, n) }

func tail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err == nil && end > n {
		_, _ = f.Seek(end-n, io.SeekStart) // a regular file can be sought
	} else {
		_, _ = f.Seek(0, io.SeekStart)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(io.LimitReader(f, n)); err != nil {
		return err.Error()
	}
	return b.String()
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}
