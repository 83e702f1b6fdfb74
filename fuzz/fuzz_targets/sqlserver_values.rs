#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| pg2any_lib::fuzzing::run("sqlserver_values", data));
