//! What `GET /1.0/resources` says of the host is what the host's own programs and the kernel say of it.

use std::collections::BTreeSet;

use cabin_tests::cli::host;
use cabin_tests::lab::Lab;
use serde_json::{Value, json};

fn told(part: &str) -> Value {
    Lab::shared().get("/1.0/resources")[part].take()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

/// What there is in a folder, whose own folder or link has that name in it.
fn with(folder: &str, inner: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let has = entries.filter(|entry| entry.path().join(inner).exists());
    has.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn names(of: &Value, key: &str) -> BTreeSet<String> {
    list(of).iter().map(|it| it[key].as_str().expect("a name").to_owned()).collect()
}

/// A number of /proc/meminfo, in bytes.
fn meminfo(key: &str) -> u64 {
    bytes("/proc/meminfo", key)
}

/// A number that a file tells in KiB, in bytes. Of a node, each line begins with the node's name.
fn bytes(path: &str, key: &str) -> u64 {
    let all = read(path);
    let of = |line: &str| {
        let (name, value) = line.split_once(':')?;
        (name.split_whitespace().next_back() == Some(key)).then(|| value.trim().to_owned())
    };
    let value = all.lines().find_map(of).expect("the line");
    value.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

#[test]
fn processors_are_those_that_lscpu_knows() {
    let cpu = told("cpu");
    let known = host(&["lscpu", "--json", "--online", "--extended=CPU,NODE,SOCKET,CORE"]).json();
    let mut known: Vec<Value> =
        list(&known["cpus"]).iter().map(|cpu| json!([cpu["cpu"], cpu["node"], cpu["socket"]])).collect();
    let mut said = Vec::new();
    let mut cores = 0;
    for socket in list(&cpu["sockets"]) {
        cores += list(&socket["cores"]).len();
        for thread in list(&socket["cores"]).iter().flat_map(|core| list(&core["threads"])) {
            said.push(json!([thread["id"], thread["numa_node"], socket["socket"]]));
        }
    }
    known.sort_by_key(|cpu| cpu[0].as_u64());
    said.sort_by_key(|cpu| cpu[0].as_u64());
    assert_eq!(said, known);
    assert_eq!(cpu["total"], known.len());

    let summary = host(&["lscpu", "--json", "--bytes"]).json();
    let fields = list(&summary["lscpu"]);
    let field =
        |name: &str| fields.iter().find(|field| field["field"] == name).map(|field| field["data"].clone());
    let socket = &cpu["sockets"][0];
    assert_eq!(Some(&socket["vendor"]), field("Vendor ID:").as_ref());
    assert_eq!(Some(&socket["name"]), field("Model name:").as_ref());
    let in_one = |name: &str| field(name).and_then(|data| data.as_str()?.parse::<usize>().ok()).unwrap_or(0);
    assert_eq!(cores, in_one("Core(s) per socket:") * in_one("Socket(s):"));
    let sizes = &socket["address_sizes"];
    let sizes = format!("{} bits physical, {} bits virtual", sizes["physical_bits"], sizes["virtual_bits"]);
    assert_eq!(field("Address sizes:"), Some(sizes.into()));
    let flags =
        list(&socket["cores"][0]["flags"]).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
    assert_eq!(field("Flags:"), Some(flags.into()));
}

#[test]
fn caches_are_those_that_lscpu_knows() {
    let known = host(&["lscpu", "--json", "--bytes", "--caches=LEVEL,TYPE,ONE-SIZE"]).json();
    let row = |cache: &Value| format!("{} {} {}", cache["level"], cache["type"], cache["one-size"]);
    let known: Vec<String> = list(&known["caches"]).iter().map(|cache| row(cache).replace('"', "")).collect();
    let cpu = told("cpu");
    let row = |cache: &Value| format!("{} {} {}", cache["level"], cache["type"], cache["size"]);
    let said: Vec<String> =
        list(&cpu["sockets"][0]["cache"]).iter().map(|cache| row(cache).replace('"', "")).collect();
    assert_eq!(said, known);
}

#[test]
fn memory_is_what_the_kernel_counts() {
    let memory = told("memory");
    assert_eq!(memory["total"], meminfo("MemTotal"));
    assert_eq!(memory["hugepages_size"], meminfo("Hugepagesize"));
    let used = memory["used"].as_u64().expect("a number");
    let most = meminfo("MemTotal") - meminfo("MemFree").min(meminfo("MemTotal") / 100);
    assert!(0 < used && used < most, "{used} of {}", meminfo("MemTotal"));
    // Where memory was added to a virtual machine the nodes do not count what the whole does.
    let place = "/sys/devices/system/node";
    let known = with(place, "meminfo");
    let known: BTreeSet<u64> =
        known.iter().map(|node| bytes(&format!("{place}/{node}/meminfo"), "MemTotal")).collect();
    let nodes = list(&memory["nodes"]).iter().filter_map(|node| node["total"].as_u64());
    assert_eq!(nodes.collect::<BTreeSet<u64>>(), known);
}

#[test]
fn disks_are_those_that_lsblk_knows() {
    let storage = told("storage");
    assert_eq!(names(&storage["disks"], "id"), with("/sys/class/block", "device"));
    assert_eq!(storage["total"], list(&storage["disks"]).len());
    for disk in list(&storage["disks"]) {
        let path = format!("/dev/{}", disk["id"].as_str().expect("a name"));
        let words =
            ["lsblk", "--json", "--bytes", "-o", "NAME,SIZE,MAJ:MIN,RO,RM,PHY-SEC,MODEL,MOUNTPOINTS", &path];
        let known = host(&words).json()["blockdevices"][0].take();
        let shape = |it: &Value, keys: [&str; 4]| keys.map(|key| it[key].clone());
        assert_eq!(
            shape(disk, ["size", "device", "read_only", "removable"]),
            shape(&known, ["size", "maj:min", "ro", "rm"])
        );
        assert_eq!(disk["block_size"], known["phy-sec"], "{path}");
        assert_eq!(disk["model"], known["model"].as_str().unwrap_or_default().trim(), "{path}");
        assert_eq!(disk["mounted"], known["mountpoints"][0].is_string(), "{path}");
        let parts = known["children"].as_array().cloned().unwrap_or_default();
        let parts: Vec<_> = parts
            .iter()
            .filter(|part| {
                !read(&format!("/sys/class/block/{}/partition", part["name"].as_str().unwrap_or_default()))
                    .is_empty()
            })
            .collect();
        let known: Vec<_> = parts.iter().map(|part| shape(part, ["name", "size", "maj:min", "ro"])).collect();
        let said: Vec<_> = list(&disk["partitions"])
            .iter()
            .map(|part| shape(part, ["id", "size", "device", "read_only"]))
            .collect();
        assert_eq!(said, known, "{path}");
    }
}

#[test]
fn network_cards_are_the_links_with_a_device() {
    let network = told("network");
    let cards = list(&network["cards"]);
    let ports: Vec<&Value> = cards.iter().flat_map(|card| list(&card["ports"])).collect();
    let said: BTreeSet<String> =
        ports.iter().map(|port| port["id"].as_str().expect("a name").to_owned()).collect();
    assert_eq!(said, with("/sys/class/net", "device"));
    for port in ports {
        let folder = format!("/sys/class/net/{}", port["id"].as_str().expect("a name"));
        assert_eq!(port["address"], read(&format!("{folder}/address")), "{folder}");
        assert_eq!(port["link_detected"], read(&format!("{folder}/carrier")) == "1", "{folder}");
    }
    for card in cards {
        let driver = card["driver"].as_str().expect("a name");
        assert!(
            driver.is_empty() || !card["driver_version"].as_str().unwrap_or_default().is_empty(),
            "{card}"
        );
        let address = card["pci_address"].as_str().expect("a name");
        if !address.is_empty() {
            let ids = read(&format!("/sys/bus/pci/devices/{address}/vendor"));
            assert_eq!(card["vendor_id"], ids.trim_start_matches("0x"), "{card}");
        }
    }
}

#[test]
fn devices_are_those_on_the_buses() {
    let pci = told("pci");
    assert_eq!(names(&pci["devices"], "pci_address"), with("/sys/bus/pci/devices", "vendor"));
    for device in list(&pci["devices"]) {
        let folder = format!("/sys/bus/pci/devices/{}", device["pci_address"].as_str().expect("a name"));
        assert_eq!(
            device["product_id"],
            read(&format!("{folder}/device")).trim_start_matches("0x"),
            "{folder}"
        );
        let driver = std::fs::read_link(format!("{folder}/driver")).unwrap_or_default();
        let driver = driver.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        assert_eq!(device["driver"], driver, "{folder}");
    }
    let hub = |name: &String| read(&format!("/sys/bus/usb/devices/{name}/bDeviceClass")) == "09";
    let known = with("/sys/bus/usb/devices", "idVendor").into_iter().filter(|name| !hub(name)).count();
    assert_eq!(told("usb")["total"], known);
}

#[test]
fn the_machine_is_what_its_firmware_says() {
    let system = told("system");
    for (key, file) in [("vendor", "sys_vendor"), ("product", "product_name"), ("uuid", "product_uuid")] {
        assert_eq!(system[key], read(&format!("/sys/class/dmi/id/{file}")), "{key}");
    }
    assert_eq!(system["firmware"].is_null(), !std::path::Path::new("/sys/class/dmi/id").exists());
    let is_guest = read("/proc/cpuinfo").contains(" hypervisor");
    let expected = if is_guest { "virtual-machine" } else { "physical" };
    assert!([expected, "container"].contains(&system["type"].as_str().expect("a word")), "{system}");
}

#[test]
fn the_load_is_that_of_proc_loadavg() {
    let said = told("load")["Average10Min"].as_f64().expect("a number");
    let known =
        read("/proc/loadavg").split(' ').nth(2).and_then(|it| it.parse::<f64>().ok()).expect("a number");
    assert!((said - known).abs() < 0.2, "{said} is not {known}");
}
