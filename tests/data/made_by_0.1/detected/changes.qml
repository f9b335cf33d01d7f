<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22.0" styleCategories="Symbology">
 <renderer-v2 type="categorizedSymbol" attr="kind" symbollevels="0" enableorderby="0" forceraster="0">
  <categories>
   <category value="appeared" label="appeared" symbol="0" render="true" type="string" />
   <category value="disappeared" label="disappeared" symbol="1" render="true" type="string" />
   <category value="replaced" label="replaced" symbol="2" render="true" type="string" />
   <category value="changed" label="changed" symbol="3" render="true" type="string" />
   <category value="" label="other" symbol="4" render="true" type="string" />
  </categories>
  <symbols>
   <symbol type="fill" name="0" alpha="1" clip_to_extent="1" force_rhr="0">
    <layer class="SimpleFill" enabled="1" locked="0" pass="0">
     <Option type="Map">
      <Option name="color" value="230,120,0,90" type="QString" />
      <Option name="style" value="solid" type="QString" />
      <Option name="joinstyle" value="miter" type="QString" />
      <Option name="outline_color" value="230,120,0,255" type="QString" />
      <Option name="outline_style" value="solid" type="QString" />
      <Option name="outline_width" value="0.5" type="QString" />
      <Option name="outline_width_unit" value="MM" type="QString" />
     </Option>
     <prop k="color" v="230,120,0,90" />
     <prop k="style" v="solid" />
     <prop k="joinstyle" v="miter" />
     <prop k="outline_color" v="230,120,0,255" />
     <prop k="outline_style" v="solid" />
     <prop k="outline_width" v="0.5" />
     <prop k="outline_width_unit" v="MM" />
    </layer>
   </symbol>
   <symbol type="fill" name="1" alpha="1" clip_to_extent="1" force_rhr="0">
    <layer class="SimpleFill" enabled="1" locked="0" pass="0">
     <Option type="Map">
      <Option name="color" value="40,150,235,90" type="QString" />
      <Option name="style" value="solid" type="QString" />
      <Option name="joinstyle" value="miter" type="QString" />
      <Option name="outline_color" value="40,150,235,255" type="QString" />
      <Option name="outline_style" value="solid" type="QString" />
      <Option name="outline_width" value="0.5" type="QString" />
      <Option name="outline_width_unit" value="MM" type="QString" />
     </Option>
     <prop k="color" v="40,150,235,90" />
     <prop k="style" v="solid" />
     <prop k="joinstyle" v="miter" />
     <prop k="outline_color" v="40,150,235,255" />
     <prop k="outline_style" v="solid" />
     <prop k="outline_width" v="0.5" />
     <prop k="outline_width_unit" v="MM" />
    </layer>
   </symbol>
   <symbol type="fill" name="2" alpha="1" clip_to_extent="1" force_rhr="0">
    <layer class="SimpleFill" enabled="1" locked="0" pass="0">
     <Option type="Map">
      <Option name="color" value="200,90,190,90" type="QString" />
      <Option name="style" value="solid" type="QString" />
      <Option name="joinstyle" value="miter" type="QString" />
      <Option name="outline_color" value="200,90,190,255" type="QString" />
      <Option name="outline_style" value="solid" type="QString" />
      <Option name="outline_width" value="0.5" type="QString" />
      <Option name="outline_width_unit" value="MM" type="QString" />
     </Option>
     <prop k="color" v="200,90,190,90" />
     <prop k="style" v="solid" />
     <prop k="joinstyle" v="miter" />
     <prop k="outline_color" v="200,90,190,255" />
     <prop k="outline_style" v="solid" />
     <prop k="outline_width" v="0.5" />
     <prop k="outline_width_unit" v="MM" />
    </layer>
   </symbol>
   <symbol type="fill" name="3" alpha="1" clip_to_extent="1" force_rhr="0">
    <layer class="SimpleFill" enabled="1" locked="0" pass="0">
     <Option type="Map">
      <Option name="color" value="230,60,40,90" type="QString" />
      <Option name="style" value="solid" type="QString" />
      <Option name="joinstyle" value="miter" type="QString" />
      <Option name="outline_color" value="230,60,40,255" type="QString" />
      <Option name="outline_style" value="solid" type="QString" />
      <Option name="outline_width" value="0.5" type="QString" />
      <Option name="outline_width_unit" value="MM" type="QString" />
     </Option>
     <prop k="color" v="230,60,40,90" />
     <prop k="style" v="solid" />
     <prop k="joinstyle" v="miter" />
     <prop k="outline_color" v="230,60,40,255" />
     <prop k="outline_style" v="solid" />
     <prop k="outline_width" v="0.5" />
     <prop k="outline_width_unit" v="MM" />
    </layer>
   </symbol>
   <symbol type="fill" name="4" alpha="1" clip_to_extent="1" force_rhr="0">
    <layer class="SimpleFill" enabled="1" locked="0" pass="0">
     <Option type="Map">
      <Option name="color" value="128,128,128,90" type="QString" />
      <Option name="style" value="solid" type="QString" />
      <Option name="joinstyle" value="miter" type="QString" />
      <Option name="outline_color" value="128,128,128,255" type="QString" />
      <Option name="outline_style" value="solid" type="QString" />
      <Option name="outline_width" value="0.5" type="QString" />
      <Option name="outline_width_unit" value="MM" type="QString" />
     </Option>
     <prop k="color" v="128,128,128,90" />
     <prop k="style" v="solid" />
     <prop k="joinstyle" v="miter" />
     <prop k="outline_color" v="128,128,128,255" />
     <prop k="outline_style" v="solid" />
     <prop k="outline_width" v="0.5" />
     <prop k="outline_width_unit" v="MM" />
    </layer>
   </symbol>
  </symbols>
 </renderer-v2>
</qgis>
