package testkit

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// instream scans b on a connection to a clamd, real or fake.
func instream(t *testing.T, network, address, b string) string {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	msg := binary.BigEndian.AppendUint32([]byte("zINSTREAM\x00"), uint32(len(b)))
	msg = append(append(msg, b...), 0, 0, 0, 0)
	if _, err := c.Write(msg); err != nil {
		t.Fatal(err)
	}
	reply, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(reply)
}

func TestClamdStopsDiesAndComesBack(t *testing.T) {
	c := StartClamd(t, ClamdOptions{TCP: true, Signatures: map[string]string{"Own.Name-1": "a string of our own to be found"}})
	finds := func(s, want string) {
		t.Helper()
		for _, at := range [][2]string{{"unix", c.Socket}, {"tcp", c.Address}} {
			if got := instream(t, at[0], at[1], s); got != "stream: "+want+"\x00" {
				t.Errorf("%s: %q, want %q", at[0], got, want)
			}
		}
	}
	finds("harmless", "OK")
	finds(EICAR(), EICARName+".UNOFFICIAL FOUND")
	finds("x"+OddString, OddName+".UNOFFICIAL FOUND")
	finds("a string of our own to be found", "Own.Name-1.UNOFFICIAL FOUND")
	first := c.PID()
	c.Kill()
	if err := pingClamd("unix", c.Socket); err == nil {
		t.Error("it answers after SIGKILL")
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if c.PID() == first {
		t.Error("the same process")
	}
	finds(EICAR(), EICARName+".UNOFFICIAL FOUND")
	if err := c.Signal(syscall.SIGSTOP); err != nil {
		t.Error(err)
	}
	if err := c.Stop(); err != nil {
		t.Errorf("stop while frozen: %v", err)
	}
}

func TestFakeClamdPlaysItsPart(t *testing.T) {
	f := StartFakeClamd(t, FakeClamdOptions{TCP: true, Scans: []FakeScan{FakeAnswer("A FOUND"), FakeRaw("raw"), FakeAnswer("OK")}})
	for _, want := range []string{"stream: A FOUND\x00", "raw", "stream: OK\x00", "stream: OK\x00"} {
		if got := instream(t, "tcp", f.Address, "x"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if err := pingClamd("tcp", f.Address); err != nil {
		t.Error(err)
	}
	if n := f.Commands("INSTREAM"); n != 4 {
		t.Errorf("%d scans", n)
	}
	f.Stop()
	if _, err := net.Dial("tcp", f.Address); err == nil {
		t.Error("it listens after Stop")
	}
}

// A file that is handed over is read by itself, with an offset of its own.
func TestFakeClamdTakesDescriptors(t *testing.T) {
	got := make(chan string, 1)
	f := StartFakeClamd(t, FakeClamdOptions{Scans: []FakeScan{func(c *FakeConn) {
		b, err := c.ReadMessage()
		got <- string(b)
		if err == nil {
			_, _ = io.WriteString(c, c.Reply("OK"))
		}
	}}})
	file, err := os.CreateTemp(t.TempDir(), "m")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString("message"); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", f.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, _, err := c.(*net.UnixConn).WriteMsgUnix([]byte("zFILDES\x00\x00"), syscall.UnixRights(int(file.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	reply, err := io.ReadAll(c)
	if string(reply) != "fd[10]: OK\x00" || err != nil {
		t.Errorf("%q %v", reply, err)
	}
	if m := <-got; !strings.Contains(m, "message") {
		t.Errorf("read %q", m)
	}
}
