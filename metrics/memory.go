package metrics

// Memory is a snapshot of the program's bound on memory.
type Memory struct {
	Limit    int64  // bytes; 0 is none
	Pressure bool   // new connections are refused for it
	Episodes uint64 // of pressure
	Reset    uint64 // idle connections that were reset for it
}

func memoryMetrics() []metric[Memory] {
	return []metric[Memory]{
		level("memory_limit_bytes", "Memory the gateway may use: memory_limit or the control group's. 0: no limit.",
			func(m *Memory) int64 { return m.Limit }),
		level("memory_pressure", "1 while new connections are refused because nine tenths of the limit are used.",
			func(m *Memory) int { return truth(m.Pressure) }),
		total("memory_pressure_total", "How often that began.",
			func(m *Memory) uint64 { return m.Episodes }),
		total("memory_reset_connections_total", "Idle connections that were reset because it lasted.",
			func(m *Memory) uint64 { return m.Reset }),
	}
}
