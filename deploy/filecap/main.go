// Filecap grants CAP_NET_ADMIN to an executable file, as
// `setcap cap_net_admin+ep FILE` does, so that a user other than root can run it
// with that capability. The image's build runs it, since a Go toolchain image has
// no setcap and the build may be offline.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
)

// The extended attribute, as capabilities(7) and linux/capability.h define it.
const (
	attribute    = "security.capability"
	revision2    = 0x02000000 // VFS_CAP_REVISION_2: two words each, no user namespace
	effective    = 0x000001   // VFS_CAP_FLAGS_EFFECTIVE: raised at exec, not by the program
	capNetAdmin  = 12
	wordsOfData  = 5 // magic, then permitted and inheritable, low and high words
	bytesPerWord = 4
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: filecap FILE")
		os.Exit(2)
	}
	if err := syscall.Setxattr(os.Args[1], attribute, netAdmin(), 0); err != nil {
		fmt.Fprintf(os.Stderr, "filecap: %s: %v (it takes CAP_SETFCAP)\n", os.Args[1], err)
		os.Exit(1)
	}
}

// netAdmin is a vfs_cap_data with CAP_NET_ADMIN permitted and effective.
func netAdmin() []byte {
	data := make([]byte, 0, wordsOfData*bytesPerWord)
	for _, word := range [wordsOfData]uint32{revision2 | effective, 1 << capNetAdmin} {
		data = binary.LittleEndian.AppendUint32(data, word)
	}
	return data
}
