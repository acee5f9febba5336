package milter

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// TestMain plays the daemon that systemd passes sockets to, if it is asked to.
func TestMain(m *testing.M) {
	if os.Getenv("SLUICE_TEST_ACTIVATED") == "" {
		os.Exit(m.Run())
	}
	os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) // systemd knows it before the program runs
	ls, err := Activated()
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(0)
	}
	for _, l := range ls {
		fmt.Println(l.Addr().Network(), l.Addr())
	}
	os.Exit(0)
}

func TestSocketsFromSystemd(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	path := socketDir(t) + "/s"
	unix, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file := func(l interface{ File() (*os.File, error) }) *os.File {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	for _, tt := range []struct {
		name  string
		files []*os.File
		want  string
	}{
		{"TCP and unix", []*os.File{file(tcp.(*net.TCPListener)), file(unix.(*net.UnixListener))}, "tcp " + tcp.Addr().String() + "\nunix " + path},
		{"not a socket", []*os.File{file(tcp.(*net.TCPListener)), null}, "error: descriptor 4 from systemd is not a listening stream socket; use ListenStream= in the socket unit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "SLUICE_TEST_ACTIVATED=1", "LISTEN_FDS="+strconv.Itoa(len(tt.files)))
			cmd.ExtraFiles = tt.files
			out, err := cmd.CombinedOutput()
			if got := strings.TrimSpace(string(out)); err != nil || got != tt.want {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}
