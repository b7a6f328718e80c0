"""Writes one ECG in every format that is XML, as devices write it, with what has misled readers before."""

import base64
import struct
import zlib
from datetime import date

import numpy as np
from ecg_made import AGE, BORN, INDEPENDENT, RECORDED, UNUSUAL_ORDER, Ecg
from numpy.typing import NDArray

from ecgbatch.records.leads import LEADS


def muse(ecg: Ecg) -> bytes:
    """Eight leads, the median beat before the rhythm."""
    step = ecg.step or 4.88

    def waveform(kind: str, digital: NDArray[np.int16]) -> str:
        leads = "".join(
            f"<LeadData><LeadByteCountTotal>{2 * len(digital)}</LeadByteCountTotal>"
            f"<LeadSampleCountTotal>{len(digital)}</LeadSampleCountTotal>"
            f"<LeadAmplitudeUnitsPerBit>{step}</LeadAmplitudeUnitsPerBit>"
            "<LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits>"
            f"<LeadID>{lead}</LeadID><LeadSampleSize>2</LeadSampleSize>"
            f"<LeadDataCRC32>{zlib.crc32(values.tobytes())}</LeadDataCRC32>"
            f"<WaveFormData>\n{base64.encodebytes(values.tobytes()).decode()}</WaveFormData></LeadData>"
            for lead, values in zip(INDEPENDENT, digital.T.copy(), strict=True)
        )
        return (
            f"<Waveform><WaveformType>{kind}</WaveformType><NumberofLeads>8</NumberofLeads>"
            f"<SampleBase>{ecg.rate}</SampleBase><SampleExponent>0</SampleExponent>{leads}</Waveform>"
        )

    digital = ecg.digital(step, INDEPENDENT)
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?><!DOCTYPE RestingECG SYSTEM "restecg.dtd"><RestingECG>'
        f"<PatientDemographics><PatientLastName>DOE</PatientLastName><PatientAge>{AGE}</PatientAge>"
        "<AgeUnits>YEARS</AgeUnits><Gender>FEMALE</Gender></PatientDemographics>"
        "<TestDemographics><AcquisitionDevice>MAC55</AcquisitionDevice></TestDemographics>"
        f"{waveform('Median', -3 * digital[:600])}{waveform('Rhythm', digital)}</RestingECG>"
    ).encode("latin-1")


def aecg(ecg: Ecg) -> bytes:
    """III and the augmented leads last, and a derived beat below the rhythm."""
    unit = ecg.step or 2.5

    def sequences(digital: NDArray[np.int16]) -> str:
        step = f'<head value="20021122091000"/><increment value="{1 / ecg.rate}" unit="s"/>'
        leads = "".join(
            f'<component><sequence><code code="MDC_ECG_LEAD_{lead.upper()}"/><value xsi:type="SLIST_PQ">'
            f'<origin value="0" unit="uV"/><scale value="{unit}" unit="uV"/>'
            f"<digits>{' '.join(map(str, values))}</digits></value></sequence></component>"
            for lead, values in zip(UNUSUAL_ORDER, digital.T.tolist(), strict=True)
        )
        return (
            '<component><sequenceSet><component><sequence><code code="TIME_ABSOLUTE"/>'
            f'<value xsi:type="GLIST_TS">{step}</value></sequence></component>{leads}</sequenceSet></component>'
        )

    digital = ecg.digital(unit, UNUSUAL_ORDER)
    derived = f'<derivedSeries><code code="REPRESENTATIVE_BEAT"/>{sequences(-3 * digital[:600])}</derivedSeries>'
    return (
        "<!-- a comment comes first -->"
        '<AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f'<effectiveTime><center value="{RECORDED:%Y%m%d}"/></effectiveTime>'
        '<subjectDemographicPerson><name>Doe</name><administrativeGenderCode code="F"/>'
        f'<birthTime value="{BORN:%Y%m%d}"/></subjectDemographicPerson>'
        f'<component><series><code code="RHYTHM"/>'
        "<author><seriesAuthor><manufacturedSeriesDevice><manufacturerModelName>ELI250</manufacturerModelName>"
        "</manufacturedSeriesDevice></seriesAuthor></author>"
        f"{sequences(digital)}<derivation>{derived}</derivation></series></component></AnnotatedECG>"
    ).encode()


def cardiosoft(ecg: Ecg) -> bytes:
    """The median beat before the strip."""
    step = ecg.step or 5

    def samples(tag: str, digital: NDArray[np.int16]) -> str:
        leads = "".join(
            f'<WaveformData lead="{lead}">\t\t{",".join(map(str, values))}</WaveformData>'
            for lead, values in zip(LEADS, digital.T.tolist(), strict=True)
        )
        return (
            f'<{tag}><NumberOfLeads>12</NumberOfLeads><SampleRate units="Hz">{ecg.rate}</SampleRate>'
            f"<ChannelSampleCountTotal>{len(digital)}</ChannelSampleCountTotal>"
            f'<Resolution units="uVperLsb">{step}</Resolution>{leads}</{tag}>'
        )

    def day(tag: str, of: date) -> str:
        return f"<{tag}><Day>{of.day}</Day><Month>{of.month}</Month><Year>{of.year}</Year></{tag}>"

    digital = ecg.digital(step)
    return (
        f'<?xml version="1.0" encoding="ISO8859-1" ?><CardiologyXML>{day("ObservationDateTime", RECORDED)}'
        "<ClinicalInfo><DeviceInfo><Desc>CardioSoft</Desc><SoftwareVer>V6.71</SoftwareVer></DeviceInfo></ClinicalInfo>"
        f"<PatientInfo>{day('BirthDateTime', BORN)}<Gender>FEMALE</Gender></PatientInfo>"
        f"<RestingECGMeasurements>{samples('MedianSamples', -3 * digital[:600])}</RestingECGMeasurements>"
        f"{samples('StripData', digital)}</CardiologyXML>"
    ).encode("latin-1")


def schiller(ecg: Ecg) -> bytes:
    """The averaged beat before the rhythm."""
    step = ecg.step or 1

    def waves(kind: str, digital: NDArray[np.int16]) -> str:
        channels = "".join(
            f"<channel><name>{lead}</name><data>{','.join(map(str, values))}</data>"
            f"<datastype>COMMASEPARATE</datastype><samplecount>{len(digital)}</samplecount></channel>"
            for lead, values in zip(LEADS, digital.T.tolist(), strict=True)
        )
        return (
            f"<wavedata><type>{kind}</type><resolution><samplerate><exponent>1</exponent><value>{ecg.rate}</value>"
            f"</samplerate><yres><unitperbit>{step:.1f}</unitperbit><units>UV</units></yres></resolution>"
            f"{channels}<channelconfiguration>ECG_STANDARD</channelconfiguration></wavedata>"
        )

    digital = ecg.digital(step)
    return (
        '\N{ZERO WIDTH NO-BREAK SPACE}<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<com.xiriuz.sema.xml.schillerEDI.SchillerEDI><patdata><lastname>Doe</lastname>"
        f"<birthdate>{BORN:%Y%m%d}</birthdate><gender>FEMALE</gender></patdata><examdescript>"
        f"<startdatetime><date>{RECORDED:%Y%m%d}</date><time>140610000</time></startdatetime><aquiringdevice>"
        "<hardware><vendor>Schiller</vendor><type>AT-110</type><model>AT-110</model></hardware></aquiringdevice>"
        f"</examdescript><eventdata><event>{waves('ECG_AVERAGES', -3 * digital[:600])}"
        f"{waves('ECG_RHYTHMS', digital)}</event></eventdata></com.xiriuz.sema.xml.schillerEDI.SchillerEDI>"
    ).encode()


def philips(ecg: Ecg) -> bytes:
    """UTF-16, compressed, an eleventh second with a calibration pulse, and a default age."""
    step = ecg.step or 5
    digital = ecg.digital(step).astype(np.int64)
    pulse = np.zeros((ecg.rate, 12), np.int64)
    pulse[ecg.rate // 2 :] = 200
    digital = np.concatenate((digital, pulse))
    i, ii, iii, avr, avl, avf = digital.T[:6].copy()
    stored = digital.T.copy()
    stored[2] = ii - i - iii
    stored[3] = -avr - (i + ii) // 2
    stored[4] = (i - iii) // 2 - avl
    stored[5] = (ii + iii) // 2 - avf
    waveforms = base64.b64encode(b"".join(map(_xli, stored))).decode()
    return (
        '<?xml version="1.0" encoding="utf-16"?><restingecgdata xmlns="http://www3.medical.philips.com">'
        "<documentinfo><documenttype>PhilipsECG</documenttype><documentversion>1.04</documentversion></documentinfo>"
        f'<dataacquisition date="{RECORDED}"><machine>PageWriter</machine><signalcharacteristics>'
        "<acquisitiontype>10-WIRE</acquisitiontype></signalcharacteristics></dataacquisition>"
        '<patient><generalpatientdata><name><lastname>DOE</lastname></name><age defaultage="20">'
        f"<dateofbirth>{BORN}</dateofbirth></age><sex>Female</sex></generalpatientdata></patient>"
        f'<waveforms><parsedwaveforms dataencoding="Base64" compression="XLI" numberofleads="12" '
        f'leadlabels="{" ".join(LEADS)}" durationperchannel="11000" samplespersecond="{ecg.rate}" resolution="{step}">'
        f"{waveforms}</parsedwaveforms></waveforms></restingecgdata>"
    ).encode("utf-16")


def _xli(samples: NDArray[np.int64]) -> bytes:
    bends = 2 * samples[1:-1] - samples[:-2] - samples[2:]
    words = np.concatenate((samples[:2], bends[1:] + 64, [64])).astype(np.int64) & 0xFFFF
    content = (words >> 8).astype(np.uint8).tobytes() + (words & 0xFF).astype(np.uint8).tobytes()
    chunk = _lzw(content)
    return struct.pack("<iHh", len(chunk), 1, bends[0]) + chunk


def _lzw(content: bytes) -> bytes:
    table = {bytes([value]): value for value in range(256)}
    codes, string = [], b""
    for byte in content:
        longer = string + bytes([byte])
        if longer in table:
            string = longer
            continue
        codes.append(table[string])
        if len(table) <= 1022:
            table[longer] = len(table)
        string = bytes([byte])
    bits = "".join(f"{code:010b}" for code in [*codes, table[string], 1023])
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
