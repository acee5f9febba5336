package testkit

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// RunMiltertest runs a Lua script of miltertest(8) and fails the test, with its
// output, unless it exits 0. address is the filter's ("unix:/path",
// "inet:port@127.0.0.1"), the global variable socket of the script.
//
// Beware: miltertest doesn't print the text of error() and assert(): use mt.echo.
func RunMiltertest(t TB, address, script string) {
	t.Helper()
	path := filepath.Join(TempDir(t), "script.lua")
	if err := os.WriteFile(path, []byte(script), 0o644); err != nil {
		t.Fatalf("testkit: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "miltertest", "-D", "socket="+address, "-s", path).CombinedOutput()
	if err != nil {
		t.Fatalf("miltertest: %v\n%s", err, out)
	}
}
