package demo

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
)

// residentSize returns this process's resident set in bytes, after what is garbage
// was given back. The second collection empties what pools kept over the first.
func residentSize() (int64, error) {
	debug.FreeOSMemory()
	debug.FreeOSMemory()
	// Unlike statm, whose counters are per CPU and summed up late, the roll-up
	// counts pages.
	f, err := os.Open("/proc/self/smaps_rollup")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "Rss:"); ok {
			var kb int64
			_, err := fmt.Sscan(rest, &kb)
			return kb << 10, err
		}
	}
	return 0, errors.Join(errors.New("smaps_rollup has no Rss line"), lines.Err())
}
